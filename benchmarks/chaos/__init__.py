"""`make chaos`: compare requests whose engine, gateway and agent are killed with the same requests
undisturbed.

| module         | job                                                                                    |
|----------------|----------------------------------------------------------------------------------------|
| `soak`         | one run: a stack, the undisturbed answers, the load, the counts                        |
| `load`         | the clients                                                                            |
| `verdict`      | whether a text equals the undisturbed one, or a part of it is lost or doubled          |
| `disturbances` | the plan of kills and upgrades                                                         |
| `disturber`    | carries the plan out; `killing` has the methods of killing an engine                   |
| `pauses`       | for which kill or upgrade a stream paused, and for how long                            |
| `tally`        | all counts, with a `histogram` of pauses for each cause; `state` stores them in a file |
| `table`        | the counts as Markdown                                                                 |

Requests and clients are those of `benchmarks/client`.
"""
