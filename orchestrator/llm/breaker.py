"""A circuit breaker for one LLM host: failures in a row open it, one trial closes it.

Pure: time is an argument. Health checks and calls feed the same breaker. A host that is merely gone is
believed as soon as a check finds it again; one that answers checks while its calls fail (a dead Metal
context answers 200 with nothing in it) is believed only by a call that succeeds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True)
class Policy:
    """`failures` in a row open it; the open time doubles. One trial may take `trial_s`, then it is lost."""

    failures: int = 3
    check_open_s: float = 1.0
    most_check_open_s: float = 5.0  # a check is cheap, and a host that came back is wanted soon
    call_open_s: float = 5.0
    most_call_open_s: float = 60.0
    trial_s: float = 300.0

    def open_s(self, opens: int, by_call: bool) -> float:
        """Seconds that the `opens`-th opening in a row (from 1) lasts."""
        first, most = (
            (self.call_open_s, self.most_call_open_s)
            if by_call
            else (self.check_open_s, self.most_check_open_s)
        )
        return min(first * 2.0 ** min(opens - 1, 30), most)


@dataclass(frozen=True)
class Breaker:
    """`failures` of calls in a row, and `missed` checks in a row. `by_call`: what opened it.

    `until`: when OPEN ends, or the trial of HALF_OPEN is given up.
    """

    policy: Policy = field(default_factory=Policy)
    state: State = State.CLOSED
    failures: int = 0
    missed: int = 0
    opens: int = 0
    by_call: bool = False
    until: float = 0.0

    def admits(self, now: float) -> bool:
        """Whether a call may be made now; it must then be taken with `admitted`."""
        return self.state is State.CLOSED or now >= self.until

    def wants_check(self, now: float) -> bool:
        """Whether a health check is worth its time-out now."""
        return self.state is not State.OPEN or self.by_call or now >= self.until

    def admitted(self, now: float) -> Breaker:
        """A call begins: out of OPEN it is the one trial."""
        if self.state is State.CLOSED:
            return self
        return replace(self, state=State.HALF_OPEN, until=now + self.policy.trial_s)

    def abandoned(self, now: float) -> Breaker:
        """The call was called off, neither passed nor failed: the next one is the trial."""
        if self.state is not State.HALF_OPEN:
            return self
        return replace(self, state=State.OPEN, until=now)

    def call_succeeded(self) -> Breaker:
        return Breaker(self.policy)

    def call_failed(self, now: float) -> Breaker:
        """A failed trial opens it again, for longer."""
        return self._failed(now, by_call=True)

    def check_passed(self) -> Breaker:
        """What only checks had found dead is back; what calls found ill is for a call to acquit."""
        if self.state is State.CLOSED or self.by_call:
            return replace(self, missed=0)
        return Breaker(self.policy)

    def check_failed(self, now: float) -> Breaker:
        return self._failed(now, by_call=False)

    def _failed(self, now: float, by_call: bool) -> Breaker:
        failures, missed = self.failures + by_call, self.missed + (not by_call)
        counted = replace(self, failures=failures, missed=missed)
        if self.state is State.CLOSED and (failures if by_call else missed) < self.policy.failures:
            return counted
        if self.state is State.OPEN and now < self.until:
            return counted  # a call that began before it opened
        opens = self.opens + 1
        until = now + self.policy.open_s(opens, by_call)
        return replace(counted, state=State.OPEN, opens=opens, by_call=by_call, until=until)
