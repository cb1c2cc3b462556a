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
    """What a ready probe or a health probe found; `detail` says it in words.

    `ok` says whether the probe succeeded. `state` is the state in which the probe found the child; None if
    the probe does not tell the child's state. BUSY means that the child is occupied, and STARTING that it
    loads something. In these two states, the child counts as alive even if `ok` is False.

    Each ready probe that finds the state STARTING restarts the start timeout (`start_timeout_s`). `progress`
    is any number that grows while a child loads, such as a fraction or a number of bytes. If it is given, the
    timeout is restarted only when it has grown, so that a child that hangs while it loads is restarted.

    `answered` is False if the child gave no answer at all. Such a child may be judged by what the kernel
    shows of its process. `hung` is then True if the child hangs, and False if it works or if it is too early
    to say. Without such a judgement, `hung` is None. `requests` is how many requests the child is serving;
    None if it does not say.
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
    """Return the seconds between ready probe `n` (counted from 0) and the next one: 50 ms after the first
    probe, and half as much again after each further one, up to 500 ms.
    """
    return min(FIRST_POLL_S * 1.5 ** min(n, 16), LAST_POLL_S)
