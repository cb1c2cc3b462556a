"""Answers outlive their client's connection, and, with the answer log, the gateway that began them.

A POST that generates is run apart from its connection, as a `KeptAnswer`: the dialect's route makes the
response, frame by frame, and any number of connections follow it. The answer log
(`mlx_server/gateway/answer_log/`) has the request as it came and the events of the engine, not the frames:
the same route makes the same frames again from these, in this gateway or in another one.

| module        | job                                                                                 |
|---------------|-------------------------------------------------------------------------------------|
| `history`     | what the reader of an answer has been given: events of the engine, and silences     |
| `kept_answer` | one request that generates: its ids, its random numbers, and its file in the log    |
| `rendering`   | the response that the route makes, as frames, for those who follow it               |
| `runs`        | the ASGI scope and body with which a route runs                                     |
| `received_body` | the body of a request, until it is in the log                                     |
| `offers`      | asks other machines to continue answers                                             |
| `running`     | the answers that run in this gateway, by id and by key                              |
| `keeper`      | starts, finds and resumes answers, also those that an earlier gateway left          |
| `middleware`  | which requests are kept, and `Idempotency-Key`                                      |
| `routes`      | GET /v1/streams/{id}                                                                |
| `opening`     | the answer log at the start of a gateway                                            |

docs/decisions/0022-answers-are-replayed.md says why.
"""
