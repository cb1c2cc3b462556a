"""Compare Vestal's supervisor with five others, with the same misbehaving children."""

from benchmarks.supervision.contest import SCENARIO as SCENARIO
