"""Compare supervisors with the same children: `python -m benchmarks.supervision [ROUNDS [NAME …]]`. NAME is a
supervisor to include; by default, all are.
"""

from __future__ import annotations

import sys

from benchmarks.scenario import run_alone
from benchmarks.supervision import SCENARIO

if __name__ == "__main__":
    run_alone(SCENARIO, sys.argv[1:])
