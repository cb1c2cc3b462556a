"""Peers: the gateways on other machines (`mlx.peers`) that finish the requests which this one cannot serve.

An answer is passed to another machine as its records (`mlx_server/gateway/answer_log/`), with a mark that
keeps that machine from passing the request on again. The peer writes the records into its own log, and
continues the request after the last token, under the same id. Clients then read the peer's frames through
this gateway.

| module              | job                                                                                |
|---------------------|------------------------------------------------------------------------------------|
| `machine_choice`    | which machine serves a new request, and to which one a failed request may go. Pure |
| `conversation`      | the beginnings of conversations, and the machines that served them. Pure           |
| `passed_on`         | the records of an answer as bytes for a peer, marked as passed on. Pure            |
| `peer`              | the HTTP client for one peer                                                       |
| `polling`           | the state of the peers, from their /health                                         |
| `answers_elsewhere` | which peer continues which answer, and how clients read it there                   |
| `others`            | all peers: offers answers to them, places new requests and finds answers there     |
| `routes`            | the routes by which peers hand over answers to this gateway or store copies here   |
| `mirrored`          | the copies of other machines' answers that are kept here. Pure                     |
| `mirroring`         | copies answers that run here to a peer, and finishes those of a machine that died  |
| `responses`         | ASGI middleware: forwards requests about a stored response to the peer that has it |

docs/decisions/0024-peers-finish-answers.md says why.
"""
