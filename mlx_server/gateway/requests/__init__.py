"""The requests of all clients, and how each survives the engines that it runs on.

| module              | job                                                                          |
|---------------------|------------------------------------------------------------------------------|
| `model_requests`    | what the engine can be asked for, free of any dialect                        |
| `sendable`          | the same, encoded: what cannot be sent is refused before it is taken in       |
| `dispatcher`        | connects clients with the engine, and reports what happens to the table      |
| `request_actions`   | carries out what the table decides: send, cancel, fail; ends tickets          |
| `engine_answers`    | handles the events of the present engine, and counts what is delivered       |
| `table`             | decide which requests run, wait, continue after a crash, or fail             |
| `open_tickets`      | the tickets that have not ended                                              |
| `engine_sender`     | the line to the present engine: requests, checks and cancellations           |
| `early_checks`      | decide which waiting requests an engine checks before their turn             |
| `ticket`            | what a handler holds of its request: the stream of its events                |
| `token_rate`        | how fast a request gets tokens, over the last few seconds                    |
| `request_spans`     | the trace of a request, by OpenTelemetry                                     |
| `pauses`            | how long streams stand still when their engine dies                          |
| `model_presets`     | what a made model (Ollama's create) adds to each of its requests              |
| `loaded_models`     | which models the next engine must load again                                 |
"""
