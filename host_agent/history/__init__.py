"""The statistics that the status page plots. They are sampled when the agent probes the gateway, and stored
in the journal's file.

| module      | what it is                                                                                |
|-------------|-------------------------------------------------------------------------------------------|
| `sample`    | the statistics of a moment or span of time, how they are packed, and how spans are joined |
| `counters`  | a gateway's counters, and how much each grew between two readings                         |
| `plot`      | samples on the regular grid of a plot: rates, means, and null where nothing is known      |
| `store`     | the two tables, one of fine samples for a day and one of coarse ones for weeks            |
| `history`   | takes a sample whenever the agent has probed the gateway, and returns the plots' data     |
"""
