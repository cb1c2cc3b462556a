"""Any life of a child, against what must hold in every one of them.

The machine is the world: it has at most the processes that the lifecycle launched, lets them come up, answer,
die and ignore SIGTERM as Hypothesis likes, and delivers ticks when they are due.
"""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vestal.supervision import (
    Backoff,
    BreakerPolicy,
    BreakerState,
    ExitStatus,
    Intensity,
    ProbePolicy,
    ProbeResult,
    RestartPolicy,
    RestartType,
    State,
)
from vestal.supervision.lifecycle.child_state import ChildState, Then, initial_state
from vestal.supervision.lifecycle.messages import (
    Action,
    Adopted,
    Emit,
    Exited,
    HealthAnswered,
    Hold,
    Input,
    Kill,
    Launch,
    Launched,
    LaunchFailed,
    ReadyAnswered,
    Release,
    Renew,
    Start,
    Stop,
    Terminate,
    Tick,
    Woke,
)
from vestal.supervision.lifecycle.transition import step

POLICY = RestartPolicy(
    backoff=Backoff(2, 20),
    intensity=Intensity(3, 100),
    breaker=BreakerPolicy(failures=2, open_s=30, max_open_s=200),
    start_timeout_s=15,
    stop_timeout_s=5,
    stable_after_s=10,
    settle_after_kill_s=4,
    probe=ProbePolicy(failures=2),
)
ROUNDING = 1e-6
STATUSES = st.sampled_from([ExitStatus(code=n) for n in (0, 1, 78)] + [ExitStatus(signal=9), ExitStatus()])
RESULTS = st.builds(
    ProbeResult,
    st.booleans(),
    st.just("told"),
    st.sampled_from([None, State.STARTING, State.BUSY, State.DEGRADED]),
    st.sampled_from([None, 0.1, 0.5]),
)


class LifeOfAChild(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.m: ChildState = initial_state(POLICY)
        self.now = 0.0
        self.launching: int | None = None  # the run being made
        self.living: int | None = None  # the run that has a process
        self.ignores_term = False
        self.terminated = False
        self.restarted_at: list[float] = []
        self.by_hand = False
        self.crashed = False  # the next launch is a restart that nobody asked for

    @initialize(restart=st.sampled_from(RestartType), ready=st.booleans(), coupled=st.booleans())
    def is_made(self, restart: RestartType, ready: bool, coupled: bool) -> None:
        """And started."""
        self.m = initial_state(POLICY, restart=restart, ready_probed=ready, coupled=coupled)
        self.tell(Start())

    # --- the world ---------------------------------------------------------------------------------------

    def tell(self, news: Input) -> None:
        before = self.m
        self.m, actions = step(before, news, self.now)
        if isinstance(news, Start | Renew):
            if news.reset:
                self.restarted_at.clear()  # a person's word forgets the window
            if news.reset or before.state in (State.STOPPED, State.FAILED):
                self.crashed = False
        for action in actions:
            self.act(action, before, news)

    def act(self, action: Action, before: ChildState, news: Input) -> None:
        match action:
            case Launch(run):
                self.may_launch(run, before, reset=isinstance(news, Start | Renew) and news.reset)
            case Terminate(run):
                assert run == self.living
                self.terminated = True
            case Kill(run):
                assert run == self.living
                assert self.terminated, "SIGKILL without SIGTERM before it"
                self.ends(ExitStatus(signal=9))
            case Emit("breaker_opened", _, fields):
                assert fields["open_s"] == POLICY.breaker.open_time(before.breaker.opens + 1)

    def may_launch(self, run: int, before: ChildState, reset: bool) -> None:
        assert self.launching is None, "two launches at once"
        assert self.living is None, "launched beside a living process"
        assert run == before.run + 1
        assert not self.by_hand, "a stop by hand is sticky"
        assert not self.m.held, "it is not its turn"
        assert self.now >= self.m.not_before, "memory has not settled"
        if before.breaker.state is BreakerState.OPEN and not reset:
            assert self.now >= before.breaker.until, "the breaker was bypassed"
            assert self.m.breaker.state is BreakerState.HALF_OPEN
        if self.crashed and self.m.breaker.state is BreakerState.CLOSED:
            self.restarted_at.append(self.now)
        self.launching, self.crashed = run, False

    def ends(self, status: ExitStatus) -> None:
        run = self.living
        assert run is not None
        self.living, self.terminated = None, False
        self.crashes()
        self.tell(Exited(run, status, "last words"))

    def crashes(self) -> None:
        """Unless its end was planned."""
        if self.m.state is not State.STOPPING or self.m.then is Then.RESTART:
            self.crashed = True

    # --- what may happen ---------------------------------------------------------------------------------

    @rule(seconds=st.one_of(st.floats(0, 5), st.floats(0, 300)))
    def time_passes(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(200):
            if self.m.wake_at is None or self.m.wake_at > end:
                break
            self.now = max(self.now, self.m.wake_at)
            self.tell(Tick())
        else:
            raise AssertionError("ticks without end")
        self.now = end

    @precondition(lambda self: self.launching is not None)
    @rule(ignores_term=st.booleans())
    def the_launch_succeeds(self, ignores_term: bool) -> None:
        run, self.launching = self.launching, None
        assert run is not None
        self.living, self.ignores_term, self.terminated = run, ignores_term, False
        self.tell(Launched(run, 1000 + run))

    @precondition(lambda self: self.launching is not None)
    @rule()
    def the_launch_fails(self) -> None:
        run, self.launching = self.launching, None
        assert run is not None
        self.crashes()
        self.tell(LaunchFailed(run, "not found"))

    @precondition(lambda self: self.living is not None)
    @rule(status=STATUSES)
    def the_process_ends(self, status: ExitStatus) -> None:
        self.ends(status)

    @precondition(lambda self: self.living is not None and self.terminated and not self.ignores_term)
    @rule()
    def the_process_obeys(self) -> None:
        self.ends(ExitStatus(signal=15))

    @rule(result=RESULTS)
    def ready_answers(self, result: ProbeResult) -> None:
        self.tell(ReadyAnswered(self.m.run, result))

    @rule(result=RESULTS)
    def health_answers(self, result: ProbeResult) -> None:
        self.tell(HealthAnswered(self.m.run, result))

    @rule(lives=st.lists(st.tuples(STATUSES, st.booleans(), st.sampled_from([0.0, 1.0, 10.0])), max_size=8))
    def it_lives_and_dies_over_and_over(self, lives: list[tuple[ExitStatus, bool, float]]) -> None:
        """Crash loops are what all this is about."""
        for status, ready, lives_s in lives:
            if self.m.held:
                self.tell(Release())
            if self.m.wake_at is not None and not self.m.alive:
                self.time_passes(max(0.0, self.m.wake_at - self.now))
            if self.launching is not None:
                self.the_launch_succeeds(False)
            if self.living is not None and ready:
                self.tell(ReadyAnswered(self.m.run, ProbeResult(True)))
            self.time_passes(lives_s)
            if self.living is not None:
                self.ends(status)

    @precondition(lambda self: self.m.run > 1)
    @rule(status=STATUSES)
    def news_of_an_earlier_process_comes_late(self, status: ExitStatus) -> None:
        before = self.m
        self.tell(Exited(self.m.run - 1, status))
        self.tell(ReadyAnswered(self.m.run - 1, ProbeResult(True)))
        self.tell(HealthAnswered(self.m.run - 1, ProbeResult(False)))
        assert self.m == before

    @rule(reset=st.booleans())
    def start(self, reset: bool) -> None:
        self.by_hand = False
        self.tell(Start(reset=reset))

    @rule(by_hand=st.booleans())
    def stop(self, by_hand: bool) -> None:
        self.by_hand = self.by_hand or by_hand
        self.tell(Stop(by_hand=by_hand))

    @rule(reset=st.booleans())
    def renew(self, reset: bool) -> None:
        self.tell(Renew(reset=reset))

    @rule(slept_s=st.sampled_from([3.0, 60.0, 30000.0]))
    def the_machine_sleeps(self, slept_s: float) -> None:
        self.restarted_at.clear()  # from before a sleep nothing counts
        self.tell(Woke(slept_s))

    @rule()
    def hold(self) -> None:
        self.tell(Hold("a sibling died"))

    @rule()
    def release(self) -> None:
        self.tell(Release())

    @precondition(lambda self: not self.m.alive)
    @rule(keep=st.booleans())
    def a_process_is_found(self, keep: bool) -> None:
        self.living, self.ignores_term, self.terminated = self.m.run + 1, False, False
        self.crashed = False  # the found one is the next
        self.tell(Adopted(77, 5.0, keep))

    # --- what must hold ----------------------------------------------------------------------------------

    @invariant()
    def model_and_world_agree(self) -> None:
        assert self.m.alive == (self.launching is not None or self.living is not None)
        assert (self.m.pid is not None) == (self.living is not None)
        assert self.m.alive == (self.m.state in (State.STARTING, State.STOPPING) or self.m.up)

    @invariant()
    def restarts_stay_within_the_intensity(self) -> None:
        window = [at for at in self.restarted_at if self.now - at < POLICY.intensity.window_s]
        assert len(window) <= POLICY.intensity.max_restarts

    @invariant()
    def no_wait_is_longer_than_its_maximum(self) -> None:
        if self.m.state is State.BACKOFF:
            assert self.m.wake_at is not None
            longest = max(POLICY.backoff.max_s, POLICY.settle_after_kill_s)
            assert self.m.wake_at - self.now <= longest + ROUNDING
        if self.m.state is State.OPEN:
            assert self.m.wake_at is not None
            assert self.m.wake_at - self.now <= POLICY.breaker.max_open_s + ROUNDING

    @invariant()
    def what_is_wanted_is_never_forgotten(self) -> None:
        resting = self.m.state in (State.STOPPED, State.BACKOFF, State.OPEN)
        if self.m.wanted and resting and not self.m.held:
            assert self.m.wake_at is not None

    @invariant()
    def breaker_open_means_nothing_starts(self) -> None:
        if self.m.state is State.STARTING:
            assert self.m.breaker.state is not BreakerState.OPEN

    def teardown(self) -> None:
        """Every stop ends, reaped."""
        self.tell(Stop(by_hand=False))
        if self.launching is not None:
            self.the_launch_succeeds(True)
        for _ in range(5):
            if self.m.wake_at is not None:
                self.now = max(self.now, self.m.wake_at)
                self.tell(Tick())
        assert self.m.state is State.STOPPED
        assert self.living is None
        assert not self.m.alive


LifeOfAChild.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestLifeOfAChild = LifeOfAChild.TestCase

CRASHES_A_LIFE = 2500
INVARIANTS = (
    LifeOfAChild.model_and_world_agree,
    LifeOfAChild.restarts_stay_within_the_intensity,
    LifeOfAChild.no_wait_is_longer_than_its_maximum,
    LifeOfAChild.what_is_wanted_is_never_forgotten,
    LifeOfAChild.breaker_open_means_nothing_starts,
)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=4, deadline=None)
def test_ten_thousand_crashes_in_four_lives_break_no_invariant(seed: int) -> None:
    """A child that is never well for long: 2,500 crashes in a row, over some weeks of simulated time."""
    chance = random.Random(seed)
    life = LifeOfAChild()
    life.is_made(RestartType.PERMANENT, True, False)
    crashes = 0
    while crashes < CRASHES_A_LIFE:
        if life.m.wake_at is not None and not life.m.alive:
            life.time_passes(max(0.0, life.m.wake_at - life.now))
        if life.launching is not None:
            if chance.random() < 0.2:
                crashes += 1
                life.the_launch_fails()
            else:
                life.the_launch_succeeds(chance.random() < 0.3)
        if life.living is not None and chance.random() < 0.7:
            life.tell(ReadyAnswered(life.m.run, ProbeResult(True)))
        life.time_passes(chance.choice((0.0, 0.5, 5.0, 12.0, 40.0)))
        if life.living is not None:
            crashes += 1
            life.ends(ExitStatus(signal=9))
        window_s = POLICY.intensity.window_s
        life.restarted_at = [at for at in life.restarted_at if life.now - at < window_s]
        for holds in INVARIANTS:
            holds(life)
        assert life.m.state is not State.STOPPED  # it is always wanted
    life.teardown()
