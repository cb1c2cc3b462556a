"""Compare our supervisor, supervisord and circus with the same children.

    python -m benchmarks.supervision [KILLS]

Measured are: the time from a death to the new process, a crash loop, a child that ignores SIGTERM, and
grandchildren.
"""

from __future__ import annotations

import sys

from benchmarks.supervision import peers, scenarios
from benchmarks.supervision.peers import CONTESTANTS, Contestant

MOST_KILLS = 5
"""The most restarts that our default policy allows in five minutes; with more kills, its pause would be
measured.
"""
LOOP_S = 20.0
ROW = "{:<38} {:>10} {:>12} {:>10}"


def measure(contestant: Contestant, kills: int) -> dict[str, str]:
    return {
        **scenarios.death_to_new_process(contestant, kills),
        **scenarios.crash_loop(contestant, LOOP_S),
        **scenarios.ignores_term(contestant),
        **scenarios.grandchildren(contestant),
    }


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else MOST_KILLS
    if not 1 <= kills <= MOST_KILLS:
        raise SystemExit(
            f"KILLS must be from 1 to {MOST_KILLS}: our supervisor allows no more restarts at once."
        )
    peers.prepare()
    results = []
    for contestant in CONTESTANTS:
        print(f"{contestant.name} …", flush=True)
        results.append(measure(contestant, kills))
    print(ROW.format("", *(contestant.name for contestant in CONTESTANTS)))
    for name in results[0]:
        print(ROW.format(name, *(result[name] for result in results)))


if __name__ == "__main__":
    main()
