"""The requests of all clients, and how each of them survives the death of its engine.

| module              | job                                                                          |
|---------------------|------------------------------------------------------------------------------|
| `model_requests`    | the requests that an engine can serve, independent of any dialect            |
| `sendable`          | the same requests, encoded; one that cannot be encoded is refused            |
| `dispatcher`        | connects clients with the engine, and reports events to the table            |
| `request_actions`   | carries out the decisions of the table: send, cancel, fail; ends tickets     |
| `engine_answers`    | handles the events of the current engine, and counts delivered tokens        |
| `table`             | decides which requests run, wait, continue after a crash, or fail            |
| `open_tickets`      | the tickets that have not ended                                              |
| `engine_sender`     | sends requests, checks and cancellations to the current engine               |
| `early_checks`      | decides which waiting requests an engine checks before their turn            |
| `ticket`            | a handler's view of its request: the stream of the request's events          |
| `token_rate`        | how fast a request gets tokens, over the last few seconds                    |
| `request_spans`     | the trace of a request, by OpenTelemetry                                     |
| `pauses`            | how long streams pause when their engine dies                                |
| `model_presets`     | settings that a model made by Ollama's create adds to each of its requests   |
| `loaded_models`     | which models the next engine must load again                                 |
"""
