"""The status of one service, as GET /status and the status page show it. Pure.

Each status comes from one observation of its service: `of_child` takes state, numbers and words from one
ChildStatus, and the other services have similar functions. Nothing is kept from an earlier status.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from host_agent.sentences import readable_cause
from vestal.supervision import ChildStatus, State

HEALTHY_STATES = frozenset({State.READY, State.BUSY})
STOPPED_BY_HAND = "stopped by hand"
START_AGAIN = "`vestal up` starts it again"
CAUSE_IN_JOURNAL = "why is not known any more; `vestal logs` has its last lines"


@dataclass(frozen=True)
class Failure:
    """A failure of a service: when it happened (seconds since 1970), and a sentence about it."""

    ts: float
    sentence: str

    def as_json(self) -> dict[str, Any]:
        """Return the failure as GET /status gives it."""
        return {"ts": self.ts, "sentence": self.sentence}


@dataclass(frozen=True)
class ServiceStatus:
    """The status of a service.

    `detail` says what is wrong, or worth knowing, and on what evidence; `remedy` says what a person can do.
    `expected` is False if the configuration of this machine does not use the service. `parent` is the service
    that this one depends on. `next_trial_in_s` is how many seconds remain until an open breaker allows
    another start; None if the breaker is closed or no such start is due. `last_failure` is the service's last
    failure in the journal. `extra` has fields that only some services report, by their name in GET /status.
    """

    state: State
    process_pid: int | None = None
    restart_count: int = 0
    health_check_failures: int = 0
    circuit_breaker_state: str = "closed"
    uptime_s: float = 0.0
    detail: str = ""
    remedy: str = ""
    expected: bool = True
    stopped_by_hand: bool = False
    parent: str | None = None
    next_trial_in_s: float | None = None
    last_failure: Failure | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_child(cls, status: ChildStatus, **extra: Any) -> "ServiceStatus":
        """Return the status of a supervisor's child, with a `detail` and a `remedy` that fit its state.
        `extra` holds further fields for GET /status.
        """
        detail, remedy = _detail_and_remedy(status)
        return cls(
            state=status.state,
            process_pid=status.process_pid,
            restart_count=status.restart_count,
            health_check_failures=status.health_check_failures,
            circuit_breaker_state=str(status.circuit_breaker_state),
            uptime_s=status.uptime_s,
            detail=detail,
            remedy=remedy,
            stopped_by_hand=status.stopped_by_hand and status.state is State.STOPPED,
            next_trial_in_s=status.next_trial_in_s,
            extra=extra,
        )

    @property
    def healthy(self) -> bool:
        """Return True if the service needs no recovery: its state is READY or BUSY, it is ABSENT (nothing is
        installed that could run), or the configuration of this machine does not use it (`expected`).
        """
        return self.state in HEALTHY_STATES or self.state is State.ABSENT or not self.expected

    @property
    def sentence(self) -> str:
        """Return `detail` and `remedy` as one text; "" if there is neither."""
        if not self.remedy:
            return self.detail
        return f"{self.detail.rstrip('.')}; {self.remedy}" if self.detail else self.remedy

    def with_extra(self, **extra: Any) -> "ServiceStatus":
        """Return a copy of this status to whose field `extra` the arguments are added, by their names. An
        argument replaces a value that has the same name.
        """
        return replace(self, extra={**self.extra, **extra})

    def as_json(self) -> dict[str, Any]:
        """Return the status as GET /status gives it; the fields of `extra` are added to the others."""
        trial_in_s = self.next_trial_in_s
        return {
            "state": str(self.state),
            "process_pid": self.process_pid,
            "restart_count": self.restart_count,
            "health_check_failures": self.health_check_failures,
            "circuit_breaker_state": self.circuit_breaker_state,
            "uptime_s": round(self.uptime_s, 1),
            "detail": self.sentence,
            "remedy": self.remedy,
            "expected": self.expected,
            "stopped_by_hand": self.stopped_by_hand,
            "parent": self.parent,
            "next_trial_in_s": None if trial_in_s is None else round(trial_in_s, 1),
            "last_failure": self.last_failure.as_json() if self.last_failure else None,
        } | dict(self.extra)


def manually_stopped() -> ServiceStatus:
    """Return the status of a service that a person stopped."""
    return ServiceStatus(State.STOPPED, detail=STOPPED_BY_HAND, remedy=START_AGAIN, stopped_by_hand=True)


def _detail_and_remedy(status: ChildStatus) -> tuple[str, str]:
    """Return two sentences on a child process for its status: what there is to say beyond its state, and what
    happens next or the user can do about it. Either is "" if there is nothing to say.
    """
    detail, cause = readable_cause(status.detail), readable_cause(status.cause)
    last_end = readable_cause(status.last_end)
    match status.state:
        case State.STOPPED if status.stopped_by_hand:
            return STOPPED_BY_HAND, START_AGAIN
        case State.STARTING:
            not_ready = f"not ready yet: {detail}" if detail else ""
            before = f"before that: {last_end}" if last_end else ""
            return "; ".join(filter(None, (not_ready, before))), ""
        case State.STOPPING:
            return detail or f"its process was asked to end: {cause or 'no reason was given'}", ""
        case State.BACKOFF:
            return detail or last_end or CAUSE_IN_JOURNAL, "it starts again by itself after a delay"
        case State.OPEN:
            remedy = "it is tried again when its breaker allows; `vestal recover --reset` tries at once"
            return detail or last_end or CAUSE_IN_JOURNAL, remedy
        case State.FAILED:
            return detail or last_end or CAUSE_IN_JOURNAL, "correct the cause, then run `vestal up`"
        case State.READY | State.BUSY | State.DEGRADED if status.health_check_failures:
            count = status.health_check_failures
            failed = "the last health check" if count == 1 else f"the last {count} health checks"
            return f"{failed} failed: {detail or 'no answer'}", ""
        case State.DEGRADED:
            return detail or "it reports that it works with restrictions, without a reason", ""
        case _:
            return detail, ""
