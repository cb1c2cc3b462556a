"""The result of a probe, and how often a child is probed. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from vestal.supervision.lifecycle.states import State

FIRST_POLL_S = 0.05
LAST_POLL_S = 0.5


@dataclass(frozen=True)
class ProbePolicy:
    """When a child that is up is probed, and when it is restarted. All times are in seconds.

    It is probed every `interval_s`. No answer within `timeout_s` is a failure, and `failures` failures in a
    row restart the child. A child that does not answer because it is busy, as its use of the CPU or the disk
    shows (see `health.silence`), is restarted only after `busy_limit_s` without an answer.
    """

    interval_s: float = 10.0
    timeout_s: float = 5.0
    failures: int = 3
    busy_limit_s: float = 120.0


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found; `detail` says it in words.

    `ok` says whether the probe succeeded. A child whose `state` is BUSY or STARTING (it loads something)
    counts as alive even if `ok` is False. `progress` is any number that grows while a child loads, such as a
    fraction or a number of bytes. A child that loads at its start gets more time; if `progress` is given,
    only while that number grows. This distinguishes a child that loads from one that hangs.

    `answered` is False if the child gave no answer at all. `hung` is None unless a child that gave no answer
    was judged by what the kernel shows of its process; it is then True if the child hangs, and False if the
    child works or if it is too early to say. `requests` is how many requests the child is serving, None if it
    does not say.
    """

    ok: bool
    detail: str = ""
    state: State | None = None
    progress: float | None = None
    answered: bool = True
    hung: bool | None = None
    requests: int | None = None

    @property
    def alive(self) -> bool:
        """Return whether the child works or loads, so that the probe does not count as failed."""
        return self.ok or self.state in (State.BUSY, State.STARTING)

    @property
    def ready(self) -> bool:
        """Return whether a child that is starting has finished starting."""
        return self.ok and self.state is not State.STARTING


def poll_delay(n: int) -> float:
    """Return the seconds between ready probe `n` and the next one: 50 ms at first, growing to 500 ms."""
    return min(FIRST_POLL_S * 1.5 ** min(n, 16), LAST_POLL_S)
