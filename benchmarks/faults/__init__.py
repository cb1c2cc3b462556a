"""Measure, for a table with a row for each fault: when the fault is noticed, when the service is back, what
is lost, and who acts.

| module          | job                                                                                  |
|-----------------|--------------------------------------------------------------------------------------|
| `outcomes`      | the outcome of a try, from the times of requests and of the journal's events (pure)  |
| `table`         | an outcome as figures, and figures as the table in Markdown (pure)                   |
| `fault`         | what a fault is, and a group of faults that are injected into one stack              |
| `on_host`       | the group of what runs on the host; its faults are in the three modules below        |
| `processes`     | engine, gateway, agent: killed, aborted, suspended, out of memory                    |
| `ollama`        | Ollama killed and suspended                                                          |
| `resources`     | a full disk, no descriptor left                                                      |
| `sleeping`      | the group of the machine's sleep, which is simulated by setting clocks forward       |
| `containers`    | the group of the orchestrator's container: killed, out of memory, dockerd restarted  |
| `docker_engine` | a separate Docker engine for the benchmark                                           |
| `stack`         | the stack into which faults are injected; `probing` sends it requests                |
| `tries`         | one try, which injects one fault once; `run` makes all tries                         |
"""
