"""The status of one service, as GET /status and the status page show it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vestal.supervision import ChildStatus, State

HEALTHY_STATES = frozenset({State.READY, State.BUSY})


@dataclass(frozen=True)
class ServiceStatus:
    """The status of a service.

    `expected` is False if the configuration of this machine does not use the service.
    """

    state: State
    process_pid: int | None = None
    restart_count: int = 0
    health_check_failures: int = 0
    circuit_breaker_state: str = "closed"
    uptime_s: float = 0.0
    detail: str = ""
    expected: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_child(cls, status: ChildStatus, **extra: Any) -> "ServiceStatus":
        """Return the status of a supervisor's child."""
        return cls(
            state=status.state,
            process_pid=status.process_pid,
            restart_count=status.restart_count,
            health_check_failures=status.health_check_failures,
            circuit_breaker_state=str(status.circuit_breaker_state),
            uptime_s=status.uptime_s,
            detail=status.detail,
            extra=extra,
        )

    @property
    def healthy(self) -> bool:
        """Return whether the service needs no recovery: it works, is absent, or is not expected."""
        return self.state in HEALTHY_STATES or self.state is State.ABSENT or not self.expected

    def with_extra(self, **extra: Any) -> "ServiceStatus":
        """Return a copy with more fields in `extra`."""
        return replace(self, extra={**self.extra, **extra})

    def as_json(self) -> dict[str, Any]:
        """Return the status as GET /status gives it; the fields of `extra` are added to the others."""
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
