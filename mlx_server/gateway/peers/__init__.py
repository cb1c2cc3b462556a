"""Peers: the gateways on other machines (`mlx.peers`) that finish what this one cannot serve.

An answer goes to another machine as its records (`mlx_server/gateway/answer_log/`): the peer writes them
into its own log, and continues the request after its tokens, under the same id. Clients then read the frames
of the peer through this gateway.

| module           | job                                                                                |
|------------------|------------------------------------------------------------------------------------|
| `machine_choice` | which machine serves a new request, and to which one a failed request may go. Pure |
| `conversation`   | the beginnings of conversations, and where they were served. Pure                  |
| `passed_on`      | what goes over the network: the records of an answer, with a mark. Pure            |
| `peer`           | one peer over HTTP                                                                 |
| `polling`        | what is known of the peers, from their /health                                     |
| `others`         | all peers, for the keeper of the answers                                           |
| `routes`         | the routes by which gateways hand answers over to this one, and mirror theirs here |
| `mirrored`       | the copies of other machines' answers that are kept here. Pure                     |
| `mirroring`      | copies what runs here to a peer, and finishes here what ran on a machine that died |
| `responses`      | ASGI middleware: forwards requests about a stored response to the peer that has it |

docs/decisions/0024-peers-finish-answers.md says why.
"""
