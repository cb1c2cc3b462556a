"""How pytest-xdist's workers share the tests.

Most component tests wait for processes, so more workers than cores help. What competes for one thing runs in
turn, though, in a lane: an engine that computes needs a core, and containers share one Docker engine. One
worker runs the files of a lane one after the other; any other file may be run by any worker.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

GATEWAY = "tests/component/mlx_server/gateway"
LANES: dict[str, tuple[str, ...]] = {
    "engine": ("tests/component/mlx_server/engine/", "tests/e2e/test_chaos.py"),
    "server": (
        "tests/clients/",
        "tests/e2e/test_native_stack.py",
        f"{GATEWAY}/test_any_body.py",
        f"{GATEWAY}/test_counts.py",
        f"{GATEWAY}/test_figures.py",
        f"{GATEWAY}/test_killed_within_answer.py",
        f"{GATEWAY}/test_large_bodies.py",
        f"{GATEWAY}/test_odd_bodies.py",
        f"{GATEWAY}/test_odd_settings.py",
        f"{GATEWAY}/test_shutdown.py",
    ),
    "docker": ("tests/e2e/",),
}


def lane_of(path: str) -> str | None:
    """Return the lane of a test file, or None for a file that any worker may run at any time."""
    return next((lane for lane, prefixes in LANES.items() if path.startswith(prefixes)), None)


class LaneScheduling(LoadScopeScheduling):
    """Hand out the lanes first, since they take the longest, then the files in the order of their names."""

    def _split_scope(self, nodeid: str) -> str:
        path: str = nodeid.partition("::")[0]
        return lane_of(path) or path

    def _assign_work_unit(self, node: WorkerController) -> None:
        lanes = [scope for scope in self.workqueue if scope in LANES]
        if lanes:
            self.workqueue.move_to_end(lanes[0], last=False)
        super()._assign_work_unit(node)

    def schedule(self) -> None:
        self.config.option.loadscopereorder = False
        super().schedule()
