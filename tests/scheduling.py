"""Distribute the tests over pytest-xdist's workers: whole files, and one at a time where files compete.

Most component tests wait for processes, so more workers than cores help. Two engines that compute at once on
two cores make each other miss their deadlines, though, and containers share one Docker engine.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

# Each lane's files are run by one worker, one after the other. The lanes begin first: they take the longest.
LANES: dict[str, tuple[str, ...]] = {
    "mlx": ("tests/component/mlx_server/engine/", "tests/clients/"),
    "docker": ("tests/e2e/",),
}


def lane_of(path: str) -> str | None:
    """Return the lane of a test file, or None for a file that any worker may run at any time."""
    return next((lane for lane, prefixes in LANES.items() if path.startswith(prefixes)), None)


class LaneScheduling(LoadScopeScheduling):
    """Hand out whole lanes first, then whole files."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return lane_of(path) or path

    def schedule(self) -> None:
        self.config.option.loadscopereorder = False
        super().schedule()
