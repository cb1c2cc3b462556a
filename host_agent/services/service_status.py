"""One line of the table of services (R3.7, R4.7)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vestal.supervision import ChildStatus, State

WELL = frozenset({State.READY, State.BUSY})


@dataclass(frozen=True)
class ServiceStatus:
    """The state of a service. `expected` is False for what this machine does without by choice."""

    state: State
    process_pid: int | None = None
    restart_count: int = 0
    health_check_failures: int = 0
    circuit_breaker_state: str = "closed"
    uptime_s: float = 0.0
    detail: str = ""
    expected: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def well(self) -> bool:
        """Nothing to heal here: it serves, or it is not here and need not be."""
        return self.state in WELL or self.state is State.ABSENT or not self.expected

    def with_extra(self, **extra: Any) -> "ServiceStatus":
        return replace(self, extra={**self.extra, **extra})

    def as_json(self) -> dict[str, Any]:
        return {
            "state": str(self.state),
            "process_pid": self.process_pid,
            "restart_count": self.restart_count,
            "health_check_failures": self.health_check_failures,
            "circuit_breaker_state": self.circuit_breaker_state,
            "uptime_s": round(self.uptime_s, 1),
            "detail": self.detail,
            "expected": self.expected,
        } | dict(self.extra)


def of_child(status: ChildStatus, **extra: Any) -> ServiceStatus:
    """The row of a child of the supervisor."""
    return ServiceStatus(
        state=status.state,
        process_pid=status.process_pid,
        restart_count=status.restart_count,
        health_check_failures=status.health_check_failures,
        circuit_breaker_state=str(status.circuit_breaker_state),
        uptime_s=status.uptime_s,
        detail=status.detail,
        extra=extra,
    )
