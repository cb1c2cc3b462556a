"""The report of a recovery pass: what it found, what it did, and what a person has to do."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Report:
    """The report of one recovery pass; only that pass writes to it. Times are in seconds since 1970.

    `reason` says why the pass was requested, and `state` is "running" or "done". `found` says what was wrong,
    `done` what is healthy again and by which remedy, and `left` what a person has to do. Each sentence begins
    with the name of its service. `healthy` says whether the last check found every service healthy. If
    `dry_run` is True, the services were checked but no remedy was applied, and `done` says what a pass would
    do.
    """

    run_id: str
    reason: str
    started_at: float
    state: str = "running"
    found: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    healthy: bool = False
    finished_at: float | None = None
    dry_run: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the report as GET /recover/{run_id} gives it."""
        return asdict(self)

    @property
    def summary(self) -> str:
        """Return the report in one line, for the journal and the terminal."""
        if not self.found:
            return "all is well" if self.healthy else "nothing to do"
        return "; ".join(self.done + [f"left: {line}" for line in self.left]) or "it came back by itself"
