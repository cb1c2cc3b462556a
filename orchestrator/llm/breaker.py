"""Decide when calls to one backend are suspended: failures in a row open its circuit breaker, and one
successful trial closes it.

Pure: time is an argument, in monotonic seconds. Health checks and calls use the same breaker. If failed
health checks opened the breaker, it closes when a check succeeds. If failed calls opened it, it closes only
when a call succeeds, because a dead Metal context answers health checks with 200 and calls with an empty
text.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum


class BackendBreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True)
class BackendBreakerPolicy:
    """The limits that decide when a backend's circuit breaker opens, and for how many seconds.

    `failures` failed calls in a row open it, and so do `failures` failed health checks in a row. It stays
    open for `check_open_s` if failed checks opened it, and for `call_open_s` if failed calls did. The time
    doubles with each opening in a row, up to `max_check_open_s` or `max_call_open_s`. A trial call that has
    not ended after `trial_s` seconds does not block the next one.
    """

    failures: int = 3
    check_open_s: float = 1.0
    max_check_open_s: float = 5.0  # short, because checks are cheap and a returning backend is needed soon
    call_open_s: float = 5.0
    max_call_open_s: float = 60.0
    trial_s: float = 300.0

    def open_s(self, opens: int, by_call: bool) -> float:
        """Return how many seconds the `opens`-th opening in a row (counted from 1) lasts, if failed calls
        (`by_call`) or failed checks caused it.
        """
        first_s, max_s = (
            (self.call_open_s, self.max_call_open_s)
            if by_call
            else (self.check_open_s, self.max_check_open_s)
        )
        return min(first_s * 2.0 ** min(opens - 1, 30), max_s)


@dataclass(frozen=True)
class BackendBreaker:
    """The state of one backend's circuit breaker, which decides whether calls and health checks may begin.

    `failures` counts failed calls in a row, `missed` failed health checks in a row, and `opens` the openings
    since the breaker was last closed. `by_call` is True if failed calls opened the breaker. `until` is a
    time: an open breaker admits a trial call from then on, and a half-open one, whose trial call is running,
    admits another trial call from then on.
    """

    policy: BackendBreakerPolicy = field(default_factory=BackendBreakerPolicy)
    state: BackendBreakerState = BackendBreakerState.CLOSED
    failures: int = 0
    missed: int = 0
    opens: int = 0
    by_call: bool = False
    until: float = 0.0

    def admits(self, now: float) -> bool:
        """Return True if a call may begin at `now`. The caller must then record the call with `admitted`."""
        return self.state is BackendBreakerState.CLOSED or now >= self.until

    def wants_check(self, now: float) -> bool:
        """Return True if a health check should be made at `now`. None should be made while the breaker is
        open because of failed checks, since the check would probably end in a time-out.
        """
        return self.state is not BackendBreakerState.OPEN or self.by_call or now >= self.until

    def admitted(self, now: float) -> BackendBreaker:
        """Return the breaker after a call has begun. If the breaker was open, this call is the trial
        (half-open).
        """
        if self.state is BackendBreakerState.CLOSED:
            return self
        return replace(self, state=BackendBreakerState.HALF_OPEN, until=now + self.policy.trial_s)

    def abandoned(self, now: float) -> BackendBreaker:
        """Return the breaker after a call was cancelled and gave no result. If it was the trial, the next
        call is the trial.
        """
        if self.state is not BackendBreakerState.HALF_OPEN:
            return self
        return replace(self, state=BackendBreakerState.OPEN, until=now)

    def call_succeeded(self) -> BackendBreaker:
        """Return the breaker after a call succeeded: closed."""
        return BackendBreaker(self.policy)

    def call_failed(self, now: float) -> BackendBreaker:
        """Return the breaker after a call failed at the time `now`. It opens after `policy.failures` failed
        calls in a row; a failed trial opens it again, for longer.
        """
        return self._failed(now, by_call=True)

    def check_passed(self) -> BackendBreaker:
        """Return the breaker after a health check succeeded: closed, unless failed calls had opened it. In
        that case its state does not change, because only a successful call closes it.
        """
        if self.state is BackendBreakerState.CLOSED or self.by_call:
            return replace(self, missed=0)
        return BackendBreaker(self.policy)

    def check_failed(self, now: float) -> BackendBreaker:
        """Return the breaker after a health check failed at the time `now`. It opens after `policy.failures`
        failed checks in a row.
        """
        return self._failed(now, by_call=False)

    def _failed(self, now: float, by_call: bool) -> BackendBreaker:
        failures, missed = self.failures + by_call, self.missed + (not by_call)
        counted = replace(self, failures=failures, missed=missed)
        if (
            self.state is BackendBreakerState.CLOSED
            and (failures if by_call else missed) < self.policy.failures
        ):
            return counted
        if self.state is BackendBreakerState.OPEN and now < self.until:
            return counted  # this call began before the breaker opened
        opens = self.opens + 1
        until = now + self.policy.open_s(opens, by_call)
        return replace(counted, state=BackendBreakerState.OPEN, opens=opens, by_call=by_call, until=until)
