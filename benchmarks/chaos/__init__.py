"""`make chaos`: compare requests whose engine, gateway and agent are killed with the same ones undisturbed.

| module         | job                                                                                    |
|----------------|----------------------------------------------------------------------------------------|
| `soak`         | one run: a stack, the undisturbed answers, the load, the counts                        |
| `load`         | the clients                                                                            |
| `verdict`      | is a text the undisturbed one, or is a part of it lost or doubled?                     |
| `disturbances` | the plan of kills and upgrades                                                         |
| `disturber`    | carries the plan out; `killing` has the faults by which an engine dies                   |
| `pauses`       | which kill or upgrade a stream paused for, and how long                                |
| `tally`        | all counts, with a `histogram` of pauses for each cause; `state` keeps them in a file  |
| `table`        | the counts as Markdown                                                                 |

Requests and clients are those of `benchmarks/client`.
"""
