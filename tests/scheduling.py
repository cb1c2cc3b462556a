"""How pytest-xdist's workers share the tests.

Most component tests wait for processes, so more workers than cores help. What competes for one thing runs in
turn, though, in a lane: an engine that computes needs a core, containers share one Docker engine, and an
agent that repairs Ollama ends the orphaned runners of all servers of this user. One worker runs the files of
a lane one after the other; any other file may be run by any worker. What waits comes before what computes,
except in one worker, so that the cores always have work; the small files of unit tests come last, so that all
workers end together.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

COMPONENT = "tests/component"
GATEWAY = f"{COMPONENT}/mlx_server/gateway"
LANES: dict[str, tuple[str, ...]] = {
    "engine": (f"{COMPONENT}/mlx_server/engine/", "tests/e2e/test_chaos.py"),
    "server": (
        "tests/clients/",
        "tests/e2e/test_native_stack.py",
        f"{GATEWAY}/bodies/test_any_body.py",
        f"{GATEWAY}/test_counts.py",
        f"{GATEWAY}/test_figures.py",
        f"{GATEWAY}/survival/test_killed_within_answer.py",
        f"{GATEWAY}/bodies/test_large_bodies.py",
        f"{GATEWAY}/bodies/test_odd_bodies.py",
        f"{GATEWAY}/test_odd_settings.py",
        f"{GATEWAY}/survival/test_shutdown.py",
    ),
    "ollama": (f"{COMPONENT}/host_agent/ollama/",),
    # The gateway of the first file must answer within 3 s, which is uncertain while images are built.
    "docker": (f"{GATEWAY}/connections/test_many_connections.py", "tests/e2e/"),
}

# Files outside the lanes in the order in which they are begun; within a row, in the order of their names. If
# a file of a minute began last, the other workers would have nothing to do meanwhile.
ORDER: tuple[str, ...] = (
    f"{COMPONENT}/orchestrator/test_workers.py",
    f"{GATEWAY}/models/test_pull.py",
    f"{GATEWAY}/survival/test_handover.py",
    f"{COMPONENT}/host_agent/test_agent_replaced.py",
    f"{COMPONENT}/host_agent/test_upgrade.py",
    f"{GATEWAY}/",
    f"{COMPONENT}/",
    "tests/stateful/",
)


def lane_of(path: str) -> str | None:
    """Return the lane of a test file, or None for a file that any worker may run at any time."""
    return next((lane for lane, prefixes in LANES.items() if path.startswith(prefixes)), None)


def rank_of(scope: str) -> int:
    """Return when a lane or a file is begun: the lower, the earlier."""
    if scope in LANES:
        return 0
    return 1 + next((at for at, prefix in enumerate(ORDER) if scope.startswith(prefix)), len(ORDER))


class LaneScheduling(LoadScopeScheduling):
    """Hand out the lanes first, since they take the longest, then the files in the order of `rank_of`.

    The worker that had the first lane begins with the unit tests.
    """

    def _split_scope(self, nodeid: str) -> str:
        path: str = nodeid.partition("::")[0]
        return lane_of(path) or path

    def _assign_work_unit(self, node: WorkerController) -> None:
        ranks = {scope: rank_of(scope) for scope in self.workqueue}
        from_the_end = node is self.nodes[0] and min(ranks.values()) > 0
        self.workqueue.move_to_end((max if from_the_end else min)(ranks, key=ranks.__getitem__), last=False)
        super()._assign_work_unit(node)

    def schedule(self) -> None:
        self.config.option.loadscopereorder = False
        super().schedule()
