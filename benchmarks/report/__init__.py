"""Create reports from figures: `benchmarks/RESULTS.md`, the plots, and the three plots in the README.

| module     | job                                                                                    |
|------------|----------------------------------------------------------------------------------------|
| `summary`  | medians, spread, and Vestal against the best peer of a row (pure)                      |
| `reasons`  | why a row is lost, from `reasons.yaml`                                                 |
| `markdown` | the tables of a run as Markdown (pure)                                                 |
| `bars`     | a bar chart as SVG, readable on light and dark pages (pure)                            |
| `plots`    | which charts there are, and the README's block                                         |
| `publish`  | writes all of these, or checks that the written files match the figures                |
"""
