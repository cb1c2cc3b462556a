"""Decide, for all requests of the gateway, which run, which wait, and which fail. Pure.

| module              | job                                                                          |
|---------------------|------------------------------------------------------------------------------|
| `request_table`     | decide which requests run, wait, continue after a crash, or fail             |
| `request_lifecycle` | the states of one request                                                    |
| `admission`         | slots, queues, and fairness between clients                                  |
| `crash_policy`      | decide whether a request continues when its engine dies                      |
| `engine_wait`       | how long a request waits for an engine                                       |
| `actions`           | the actions that the dispatcher carries out for the table                    |
"""
