"""Breaker and intensity hold their limits under any order of starts and results, and any passing of time."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vestal.supervision import Breaker, BreakerPolicy, BreakerState, Intensity

POLICY = BreakerPolicy(failures=3, open_s=10, max_open_s=100)
TRIAL_TIMEOUT_S = 7.0


class AnyBreaker(RuleBasedStateMachine):
    """Starts are made whenever they are allowed; each reports a result, or never does."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(POLICY)
        self.now = 0.0
        self.failures_in_a_row = 0
        self.trial_since: float | None = None

    @rule(seconds=st.floats(0, 30))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.breaker.allows_start(self.now))
    @rule()
    def begin_start(self) -> None:
        if self.trial_since is not None and self.breaker.state is BreakerState.HALF_OPEN:
            elapsed_s = self.now - self.trial_since
            assert elapsed_s >= TRIAL_TIMEOUT_S - 1e-6, "a second trial was allowed during the first"
        before = self.breaker.state
        self.breaker = self.breaker.begin_trial(self.now, TRIAL_TIMEOUT_S)
        self.trial_since = None if before is BreakerState.CLOSED else self.now
        assert (self.breaker.state is BreakerState.CLOSED) == (before is BreakerState.CLOSED)

    @precondition(lambda self: self.breaker.state is not BreakerState.OPEN)
    @rule()
    def fail_start(self) -> None:
        was_trial = self.breaker.state is BreakerState.HALF_OPEN
        self.failures_in_a_row += 1
        self.breaker = self.breaker.start_failed(self.now)
        is_open = self.breaker.state is BreakerState.OPEN
        assert is_open == (was_trial or self.failures_in_a_row >= POLICY.failures)
        if is_open:
            assert not self.breaker.allows_start(self.now)

    @precondition(lambda self: self.breaker.state is not BreakerState.OPEN)
    @rule(runs_stably=st.booleans())
    def succeed_start(self, runs_stably: bool) -> None:
        self.failures_in_a_row = 0
        self.breaker = self.breaker.start_succeeded()
        if runs_stably:
            self.breaker = self.breaker.ran_stably()
        assert self.breaker.state is BreakerState.CLOSED

    @rule()
    def cancel_trial(self) -> None:
        before = self.breaker
        self.breaker = self.breaker.cancel_trial(self.now)
        if before.state is not BreakerState.HALF_OPEN:
            assert self.breaker == before

    @rule()
    def trip(self) -> None:
        self.breaker = self.breaker.trip(self.now)

    @invariant()
    def open_time_stays_within_the_maximum_and_ends(self) -> None:
        if self.breaker.state is BreakerState.OPEN:
            assert self.breaker.until - self.now <= POLICY.max_open_s + 1e-6
        if self.breaker.state is not BreakerState.CLOSED:
            assert self.breaker.allows_start(self.breaker.until)


class AnyIntensity(RuleBasedStateMachine):
    """Restarts are made whenever the intensity is not exceeded."""

    def __init__(self) -> None:
        super().__init__()
        self.intensity = Intensity(4, 60)
        self.now = 0.0
        self.restarts: list[tuple[float, float]] = []  # time and weight

    @rule(seconds=st.floats(0, 40))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(weight=st.sampled_from([1.0, 0.1, 0.25]))
    def restart_if_allowed(self, weight: float) -> None:
        if not self.intensity.exceeded(self.now, weight):
            self.intensity = self.intensity.add(self.now, weight)
            self.restarts.append((self.now, weight))

    @rule(weight=st.sampled_from([0.1, 0.25]))
    def lighten(self, weight: float) -> None:
        self.intensity = self.intensity.lighten(weight)
        self.restarts = [(at, min(each, weight)) for at, each in self.restarts]

    @invariant()
    def no_window_holds_more_restarts_than_the_limit(self) -> None:
        """The weights within a window stay within the limit, so that the least weight bounds the number."""
        for start, _ in self.restarts:
            assert sum(weight for at, weight in self.restarts if 0 <= at - start < 60) <= 4 + 1e-6
        assert len(self.intensity.times) <= 40


SMALL = settings(max_examples=60, stateful_step_count=40, deadline=None)
AnyBreaker.TestCase.settings = SMALL
AnyIntensity.TestCase.settings = SMALL
TestAnyBreaker = AnyBreaker.TestCase
TestAnyIntensity = AnyIntensity.TestCase
