"""Answers outlive their client's connection, and, with the answer log, the gateway that began them.

A POST that generates is run apart from its connection, as a `KeptAnswer`: the dialect's route makes the
response, frame by frame, and any number of connections follow it. What is written down
(`mlx_server/gateway/answer_log/`) is the request as it came and what the engine said, not the frames: the
same route makes the same frames again from that, in this gateway or in another one.

| module        | job                                                                                 |
|---------------|-------------------------------------------------------------------------------------|
| `history`     | what the reader of an answer has been given: events of the engine, and silences     |
| `kept_answer` | one such request: its ids and random numbers, and what of it is written down        |
| `rendering`   | the response that the route makes, as frames, for those who follow it               |
| `runs`        | what a run of it is given: its ASGI scope and body                                  |
| `received_body` | its body, until it is written down                                                |
| `offers`      | what other machines are asked to go on with                                         |
| `running`     | the answers that run in this gateway, by id and by key                              |
| `keeper`      | all of them: starts, finds, resumes, and takes up what an earlier gateway left      |
| `middleware`  | which requests are kept, and `Idempotency-Key`                                      |
| `routes`      | GET /v1/streams/{id}                                                                |
| `opening`     | the answer log at the start of a gateway                                            |

docs/decisions/0022-answers-are-replayed.md says why.
"""
