"""Run a gateway, an agent or a whole stack for a benchmark, in its own home and on its own ports."""
