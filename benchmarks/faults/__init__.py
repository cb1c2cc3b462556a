"""The fault table: when each fault is noticed, when the service is back, what is lost, and who acts.

| module          | job                                                                                  |
|-----------------|--------------------------------------------------------------------------------------|
| `outcomes`      | what a try came to, from the times of requests and of the journal's events (pure)    |
| `table`         | an outcome as figures, and figures as the table in Markdown (pure)                   |
| `fault`         | what a fault is, and a group of faults that are made to one stack                    |
| `on_host`       | the group of what runs on the host; its faults are in the three modules below        |
| `processes`     | engine, gateway, agent: killed, aborted, suspended, out of memory                    |
| `ollama`        | Ollama killed and suspended                                                          |
| `resources`     | a full disk, no descriptor left                                                      |
| `sleeping`      | the group of the sleep, by clocks that are set forward                               |
| `containers`    | the group of the orchestrator's container: killed, out of memory, dockerd restarted  |
| `docker_engine` | a Docker engine of the benchmark's own                                               |
| `stack`         | the stack of its own; `probing` sends it requests                                    |
| `tries`         | one try; `run` makes all of them                                                     |
"""
