"""The engine as a child process of the gateway: launched, watched, replaced when it fails, stopped.

| module            | job                                                                            |
|-------------------|--------------------------------------------------------------------------------|
| `supervisor`      | start, restart and stop the engine; what `main`, `health` and `metrics` use    |
| `child_spec`      | how the engine is run: command, environment, restart rules                     |
| `memory_gate`     | hold back a launch until the machine has memory for it                         |
| `launcher`        | make an engine process with a socketpair to it, or take the standby engine     |
| `standby`         | a second process, imports done, that waits to become the next engine           |
| `link`            | cut the engine's bytes into events, send it operations                         |
| `session`         | pass events on to the dispatcher for as long as one engine lives               |
| `exit_evidence`   | decide from an exit whether the engine's requests may have caused it           |
| `liveness`        | decide from the events whether the engine is loading, busy, idle or wedged     |
| `recycle_policy`  | decide when an engine is replaced for its memory or its age                    |
| `recycler`        | carry that decision out                                                        |
"""
