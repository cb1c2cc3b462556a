"""Simulate 1, 10 and 100 machines that share their load, and workers that share one Postgres.

    python -m benchmarks.scale                 simulate; write figures, plots and the tables of docs/scale.md
    python -m benchmarks.scale render          write the plots and tables again from figures.json
    python -m benchmarks.scale --parameters F  print the tables for the parameters in F; nothing is written

| module        | job                                                                                    |
|---------------|----------------------------------------------------------------------------------------|
| `parameters`  | the properties of machines, load, failures and workers, each with its source (YAML)    |
| `events`      | the event loop, which runs calls in the order of simulated time                        |
| `engine`      | one machine's engine: slots, steps of the batch, prompts, its prompt cache             |
| `workload`    | conversations and their turns                                                          |
| `routing`     | which machine a turn goes to; Vestal's rule is `mlx_server/gateway/peers` itself       |
| `fleet`       | machines, arrivals, deaths and take-overs, and their effects on each request           |
| `workers`     | durable tasks of many workers on one Postgres                                          |
| `experiments` | which cases are simulated, and their figures                                           |
| `report`      | the tables; `svg` draws the plots                                                      |

All times are simulated seconds; nothing waits, and the same seed gives the same figures.
"""
