"""Breaker and intensity under any order of news and any passing of time."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vestal.supervision import Breaker, BreakerPolicy, BreakerState, Intensity

POLICY = BreakerPolicy(failures=3, open_s=10, max_open_s=100)
TRIAL_S = 7.0


class AnyBreaker(RuleBasedStateMachine):
    """Starts are tried whenever they are admitted; each reports back, or never does."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(POLICY)
        self.now = 0.0
        self.row = 0
        self.trial_since: float | None = None

    @rule(seconds=st.floats(0, 30))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.breaker.admits(self.now))
    @rule()
    def a_start_is_made(self) -> None:
        if self.trial_since is not None and self.breaker.state is BreakerState.HALF_OPEN:
            assert self.now - self.trial_since >= TRIAL_S - 1e-6, "a second trial beside a running one"
        was = self.breaker.state
        self.breaker = self.breaker.admit(self.now, TRIAL_S)
        self.trial_since = None if was is BreakerState.CLOSED else self.now
        assert (self.breaker.state is BreakerState.CLOSED) == (was is BreakerState.CLOSED)

    @precondition(lambda self: self.breaker.state is not BreakerState.OPEN)
    @rule()
    def it_fails(self) -> None:
        was_trial = self.breaker.state is BreakerState.HALF_OPEN
        self.row += 1
        self.breaker = self.breaker.failed(self.now)
        is_open = self.breaker.state is BreakerState.OPEN
        assert is_open == (was_trial or self.row >= POLICY.failures)
        if is_open:
            assert not self.breaker.admits(self.now)

    @precondition(lambda self: self.breaker.state is not BreakerState.OPEN)
    @rule(settles=st.booleans())
    def it_succeeds(self, settles: bool) -> None:
        self.row = 0
        self.breaker = self.breaker.succeeded()
        if settles:
            self.breaker = self.breaker.settled()
        assert self.breaker.state is BreakerState.CLOSED

    @rule()
    def it_is_called_off(self) -> None:
        was = self.breaker
        self.breaker = self.breaker.abandon(self.now)
        if was.state is not BreakerState.HALF_OPEN:
            assert self.breaker == was

    @rule()
    def it_is_tripped(self) -> None:
        self.breaker = self.breaker.trip(self.now)

    @invariant()
    def it_never_waits_longer_than_the_maximum_and_never_wedges(self) -> None:
        if self.breaker.state is BreakerState.OPEN:
            assert self.breaker.until - self.now <= POLICY.max_open_s + 1e-6
        if self.breaker.state is not BreakerState.CLOSED:
            assert self.breaker.admits(self.breaker.until)


class AnyIntensity(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.intensity = Intensity(4, 60)
        self.now = 0.0
        self.made: list[float] = []

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def a_restart_is_due(self) -> None:
        if not self.intensity.exceeded(self.now):
            self.intensity = self.intensity.add(self.now)
            self.made.append(self.now)

    @invariant()
    def no_window_holds_more_than_the_limit(self) -> None:
        for start in self.made:
            assert sum(1 for at in self.made if 0 <= at - start < 60) <= 4
        assert len(self.intensity.times) <= 4


SMALL = settings(max_examples=60, stateful_step_count=40, deadline=None)
AnyBreaker.TestCase.settings = SMALL
AnyIntensity.TestCase.settings = SMALL
TestAnyBreaker = AnyBreaker.TestCase
TestAnyIntensity = AnyIntensity.TestCase
