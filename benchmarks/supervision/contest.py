"""Let the supervisors take turns at the same disturbances, and log what was observed of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from benchmarks.figures import Figure
from benchmarks.peers.process import PeerFailed
from benchmarks.peers.supervisors import SUPERVISOR_PEERS, VESTAL_SUPERVISOR, SupervisorPeer
from benchmarks.scenario import Log, Scenario, Subjects, progress
from benchmarks.supervision import scenarios

KILLS = 2
"""How often a child is killed in a round. Our default policy allows five restarts in five minutes, then
pauses.
"""
LOOP_S = 6.0


@dataclass(frozen=True)
class Disturbance:
    """Something that is done to a supervisor or its child, to measure the reaction. `about` says in words
    what is done. `observe` does it and returns the figures by name; `units` maps the name of each figure to
    its unit. Lower figures are always better.

    All supervisors are disturbed at the same time, because most of an observation consists of waiting. Only
    restart times are measured for one supervisor at a time.
    """

    about: str
    units: Mapping[str, str]
    observe: Callable[[SupervisorPeer], Mapping[str, float]]


DISTURBANCES = (
    Disturbance(
        "kill -9 of the child",
        {"restart_p50_ms": "ms", "restart_max_ms": "ms", "memory_mb": "MB"},
        lambda peer: scenarios.death_to_new_process(peer, KILLS),
    ),
    Disturbance(
        "a child that exits at once",
        {"crash_loop_starts_per_s": "starts/s", "crash_loop_cpu_percent": "% of a core"},
        lambda peer: scenarios.crash_loop(peer, LOOP_S),
    ),
    Disturbance(
        "stop, while the child ignores SIGTERM",
        {"stubborn_child_stop_s": "s", "stubborn_child_left": "processes"},
        scenarios.ignores_term,
    ),
    Disturbance(
        "kill -9 of a child that has a child",
        {"grandchildren_strays": "processes", "grandchildren_left_after_stop": "processes"},
        scenarios.grandchildren,
    ),
)


def run(log: Log, subjects: Subjects, rounds: int) -> None:
    """Expose each supervisor to every disturbance in each round, and log the figures and failures."""
    contestants = _contestants(subjects)
    for number in range(1, rounds + 1):
        for disturbance in DISTURBANCES:
            progress(f"{number} of {rounds}: {disturbance.about} …")
            with ThreadPoolExecutor(max(len(contestants), 1)) as pool:
                for figures in pool.map(partial(_observed, disturbance, number), contestants):
                    for figure in figures:
                        log(figure)


def _contestants(subjects: Subjects) -> Sequence[SupervisorPeer]:
    wanted = [peer for peer in (VESTAL_SUPERVISOR, *SUPERVISOR_PEERS) if subjects.wants(peer.name)]
    for peer in wanted:
        if (why_not := peer.available()) is not None:
            subjects.skip(peer.name, why_not)
    return [peer for peer in wanted if peer.name not in subjects.skipped]


def _observed(disturbance: Disturbance, number: int, peer: SupervisorPeer) -> list[Figure]:
    """Disturb a supervisor in round `number` and return the figures. If that fails, each figure has the
    reason instead of a value.
    """
    rows = {f"supervision/{row}": row for row in disturbance.units}
    try:
        observed = disturbance.observe(peer)
    except (PeerFailed, TimeoutError) as error:
        return [Figure(title, peer.name, failed=str(error), round=number) for title in rows]
    return [
        Figure(title, peer.name, observed[row], disturbance.units[row], "lower", number)
        for title, row in rows.items()
    ]


SCENARIO = Scenario("supervision", "crashing children under five other supervisors", 33, 300, run)
