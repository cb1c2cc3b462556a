"""A circuit breaker over starts: consecutive failures open it, one trial at a time closes it (R3.4).

Pure: each method returns the next breaker. Time is monotonic seconds. A trial that never reports back
expires, so HALF_OPEN cannot wedge; and while one runs no other is admitted (both are faults of known
breakers, see resilience4j 903).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True)
class BreakerPolicy:
    """`failures` in a row open it for `open_s`, doubling with each opening up to `max_open_s`."""

    failures: int = 5
    open_s: float = 60.0
    max_open_s: float = 1800.0

    def open_time(self, opens: int) -> float:
        """Seconds that the `opens`-th opening (from 1) lasts."""
        return min(self.open_s * 2.0 ** min(max(0, opens - 1), 64), self.max_open_s)


@dataclass(frozen=True)
class Breaker:
    """`until`: when OPEN ends, or the trial of HALF_OPEN expires. `opens`: openings since it last held."""

    policy: BreakerPolicy = field(default_factory=BreakerPolicy)
    state: BreakerState = BreakerState.CLOSED
    failures: int = 0
    opens: int = 0
    until: float = 0.0

    def admits(self, now: float) -> bool:
        """Whether a start may be made now. In OPEN and HALF_OPEN it must then be taken with `admit`."""
        return self.state is BreakerState.CLOSED or now >= self.until

    def admit(self, now: float, timeout_s: float) -> Breaker:
        """Takes the start that `admits` allowed: out of OPEN it is the one trial, for `timeout_s`."""
        if not self.admits(now):
            raise ValueError("the breaker admits no start now")
        if self.state is BreakerState.CLOSED:
            return self
        return replace(self, state=BreakerState.HALF_OPEN, until=now + timeout_s)

    def extend(self, now: float, timeout_s: float) -> Breaker:
        """The trial makes progress and gets `timeout_s` from now."""
        if self.state is not BreakerState.HALF_OPEN:
            return self
        return replace(self, until=max(self.until, now + timeout_s))

    def abandon(self, now: float) -> Breaker:
        """The trial was called off, neither passed nor failed: the next start is the trial."""
        if self.state is not BreakerState.HALF_OPEN:
            return self
        return replace(self, state=BreakerState.OPEN, until=now)

    def succeeded(self) -> Breaker:
        """A start came up: closed. The open time is kept until `settled`, so that up-and-die doubles on."""
        return replace(self, state=BreakerState.CLOSED, failures=0, until=0.0)

    def settled(self) -> Breaker:
        """What came up ran on: the next opening is short again."""
        return replace(self, opens=0, failures=0) if self.state is BreakerState.CLOSED else self

    def woke(self, now: float, slept_s: float, timeout_s: float) -> Breaker:
        """The machine slept: failures from before do not count, open time went by, a trial begins anew."""
        if self.state is BreakerState.CLOSED:
            return replace(self, failures=0)
        if self.state is BreakerState.HALF_OPEN:
            return self.extend(now, timeout_s)
        return replace(self, until=max(now, self.until - slept_s))

    def failed(self, now: float) -> Breaker:
        """A start failed. A failed trial opens it again, for twice as long."""
        failures = self.failures + 1
        counted = replace(self, failures=failures)
        if self.state is BreakerState.HALF_OPEN or failures >= self.policy.failures:
            return counted.trip(now)
        return counted

    def trip(self, now: float) -> Breaker:
        """Opens it, whatever the count."""
        opens = self.opens + 1
        return replace(self, state=BreakerState.OPEN, opens=opens, until=now + self.policy.open_time(opens))
