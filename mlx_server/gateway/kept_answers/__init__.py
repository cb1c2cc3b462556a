"""Answers outlive their client's connection, and, with the answer log, the gateway that began them.

A POST request that generates runs independently of its connection, as a `KeptAnswer`: the dialect's route
writes the response, frame by frame, and any number of connections follow it. The answer log
(`mlx_server/gateway/answer_log/`) stores the request and the engine's events, but not the frames. From the
events, the same route writes the same frames again, in this gateway or in another one.

| module        | job                                                                                 |
|---------------|-------------------------------------------------------------------------------------|
| `history`     | the events and keep-alives that the reader of an answer has received                |
| `kept_answer` | one request that generates: its ids, its random numbers, and its file in the log    |
| `rendering`   | the frames of the response that the route writes, for the clients that follow it    |
| `first_record` | the first record of a request in the log                                          |
| `runs`        | the ASGI scope and body with which a route runs                                     |
| `received_body` | the body of a request, until it is in the log                                     |
| `offers`      | asks other machines to continue answers                                             |
| `running`     | the answers that run in this gateway, by answer id and by idempotency key           |
| `keeper`      | starts, finds and resumes answers, including those that an earlier gateway left     |
| `middleware`  | decides for which requests answers are stored, and handles `Idempotency-Key`        |
| `routes`      | GET /v1/streams/{id}                                                                |
| `opening`     | the answer log at the start of a gateway                                            |

docs/decisions/0022-answers-are-replayed.md says why.
"""
