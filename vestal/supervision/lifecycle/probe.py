"""What a probe says, and how often it is asked."""

from __future__ import annotations

from dataclasses import dataclass

from vestal.supervision.lifecycle.states import State

FIRST_POLL_S = 0.05
LAST_POLL_S = 0.5


@dataclass(frozen=True)
class ProbePolicy:
    """Asked every `interval_s`; no answer in `timeout_s` is a failure; `failures` in a row mean down."""

    interval_s: float = 10.0
    timeout_s: float = 5.0
    failures: int = 3


@dataclass(frozen=True)
class ProbeResult:
    """An answer. `state` BUSY or STARTING (loading) means alive, whatever `ok` says.

    `progress` (any number that grows: a fraction, bytes) lets a start that loads be told from one that is
    wedged: with it, only an answer that has moved on earns a starting child more time.
    """

    ok: bool
    detail: str = ""
    state: State | None = None
    progress: float | None = None

    @property
    def alive(self) -> bool:
        return self.ok or self.state in (State.BUSY, State.STARTING)

    @property
    def ready(self) -> bool:
        return self.ok and self.state is not State.STARTING


def poll_delay(n: int) -> float:
    """Seconds before the ready probe number `n` + 1: 50 ms, growing to 500 ms."""
    return min(FIRST_POLL_S * 1.5 ** min(n, 16), LAST_POLL_S)
