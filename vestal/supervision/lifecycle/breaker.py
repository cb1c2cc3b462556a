"""The circuit breaker over a child's starts, and its half-open rule. Pure.

    CLOSED      Starts are allowed. A number of failed starts in a row opens the breaker.
    OPEN        No start is allowed before `until`.
    HALF_OPEN   One trial start is under way, and no other start is allowed. The breaker closes if the trial
                succeeds, and opens for twice as long if it fails.

A trial that never reports a result expires at `until`, and the next start is another trial: otherwise the
breaker would stay half-open indefinitely (as in resilience4j issue 903). Each method returns a new breaker;
all times are monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum


class BreakerState(StrEnum):
    """The state of a circuit breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True)
class BreakerPolicy:
    """The limits of a breaker. `failures` failed starts in a row open it. It opens for `open_s` seconds the
    first time, and for twice as long each time, up to `max_open_s`.
    """

    failures: int = 5
    open_s: float = 60.0
    max_open_s: float = 1800.0

    def open_time(self, opens: int) -> float:
        """Return for how many seconds the breaker stays open when it opens for the `opens`-th time
        (from 1).
        """
        return min(self.open_s * 2.0 ** min(max(0, opens - 1), 64), self.max_open_s)


@dataclass(frozen=True)
class Breaker:
    """A circuit breaker.

    `failures` counts the failed starts in a row. `opens` counts how often the breaker has opened since the
    child last ran stably. `until` is when OPEN ends, or when the trial of HALF_OPEN expires.
    """

    policy: BreakerPolicy = field(default_factory=BreakerPolicy)
    state: BreakerState = BreakerState.CLOSED
    failures: int = 0
    opens: int = 0
    until: float = 0.0

    def allows_start(self, now: float) -> bool:
        """Return whether a start is allowed now. Before a start with a breaker that is not closed, the caller
        must call `begin_trial`.
        """
        return self.state is BreakerState.CLOSED or now >= self.until

    def begin_trial(self, now: float, timeout_s: float) -> Breaker:
        """Return the half-open breaker. The start that follows is its trial, and must succeed within
        `timeout_s`.

        A closed breaker needs no trial and is returned as it is. Raises ValueError if no start is allowed.
        """
        if not self.allows_start(now):
            raise ValueError("the breaker allows no start now")
        if self.state is BreakerState.CLOSED:
            return self
        return replace(self, state=BreakerState.HALF_OPEN, until=now + timeout_s)

    def extend_trial(self, now: float, timeout_s: float) -> Breaker:
        """Extend a trial that makes progress, so that at least `timeout_s` remains for it from `now`."""
        if self.state is not BreakerState.HALF_OPEN:
            return self
        return replace(self, until=max(self.until, now + timeout_s))

    def cancel_trial(self, now: float) -> Breaker:
        """End a trial that neither succeeded nor failed. The next start is allowed at once, and is another
        trial.
        """
        if self.state is not BreakerState.HALF_OPEN:
            return self
        return replace(self, state=BreakerState.OPEN, until=now)

    def start_succeeded(self) -> Breaker:
        """Close the breaker. `opens` stays, so that a child that starts and dies waits longer each time."""
        return replace(self, state=BreakerState.CLOSED, failures=0, until=0.0)

    def start_failed(self, now: float) -> Breaker:
        """Count a failed start. A failed trial opens the breaker, and so do `policy.failures` in a row."""
        counted = replace(self, failures=self.failures + 1)
        if self.state is BreakerState.HALF_OPEN or counted.failures >= self.policy.failures:
            return counted.trip(now)
        return counted

    def ran_stably(self) -> Breaker:
        """Return the breaker without its failures and past openings, because the child ran for long enough.
        Its next opening is a short one again. A breaker that is not closed is returned unchanged.
        """
        return replace(self, opens=0, failures=0) if self.state is BreakerState.CLOSED else self

    def trip(self, now: float) -> Breaker:
        """Open the breaker at once, regardless of the number of failures."""
        opens = self.opens + 1
        return replace(self, state=BreakerState.OPEN, opens=opens, until=now + self.policy.open_time(opens))

    def machine_woke(self, now: float, slept_s: float, trial_timeout_s: float) -> Breaker:
        """Return the breaker after the machine slept. A closed breaker forgets its failures, an open one
        counts the sleep as open time, and a trial gets its full time again.
        """
        if self.state is BreakerState.CLOSED:
            return replace(self, failures=0)
        if self.state is BreakerState.HALF_OPEN:
            return self.extend_trial(now, trial_timeout_s)
        return replace(self, until=max(now, self.until - slept_s))
