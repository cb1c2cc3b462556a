"""What a pass tells: what it found, what it did, what it could not do."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Report:
    """One pass. Sentences name the service first. Written only by the pass itself."""

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
        return asdict(self)

    @property
    def summary(self) -> str:
        """One line for journal and terminal."""
        if not self.found:
            return "all is well" if self.healthy else "nothing to do"
        return "; ".join(self.done + [f"left: {line}" for line in self.left]) or "it came back by itself"
