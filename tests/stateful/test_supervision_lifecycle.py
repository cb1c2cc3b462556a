"""Any life of a child, checked against what must hold in every one of them.

The machine plays the world. It has no process that the lifecycle has not launched. It lets processes start,
answer probes, die and ignore SIGTERM in any order, and fires the lifecycle's timer when it is due.
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
from vestal.supervision.lifecycle.actions import Action, Emit, Kill, Launch, Terminate
from vestal.supervision.lifecycle.child_state import AfterStop, ChildState, initial_state
from vestal.supervision.lifecycle.inputs import (
    Exited,
    HealthProbed,
    Input,
    Launched,
    LaunchFailed,
    MachineWoke,
    ProcessFound,
    ReadyProbed,
    ReleaseHold,
    Restart,
    Start,
    Stop,
    StopAndHold,
    TimerFired,
)
from vestal.supervision.lifecycle.transition import step

POLICY = RestartPolicy(
    backoff=Backoff(2, 20),
    intensity=Intensity(3, 100),
    breaker=BreakerPolicy(failures=2, open_s=30, max_open_s=200),
    start_timeout_s=15,
    stop_timeout_s=5,
    stable_after_s=10,
    productive_weight=0.25,
    settle_after_kill_s=4,
    probe=ProbePolicy(failures=2),
)
ROUNDING = 1e-6
LIVES = st.tuples(
    st.sampled_from([ExitStatus(code=1), ExitStatus(signal=9)]),
    st.booleans(),  # it becomes ready
    st.sampled_from([0.0, 1.0, 10.0]),  # seconds that it lives
    st.booleans(),  # it is productive
)
STATUSES = st.sampled_from([ExitStatus(code=n) for n in (0, 1, 78)] + [ExitStatus(signal=9), ExitStatus()])
RESULTS = st.builds(
    ProbeResult,
    st.booleans(),
    st.just("a detail"),
    st.sampled_from([None, State.STARTING, State.BUSY, State.DEGRADED]),
    st.sampled_from([None, 0.1, 0.5]),
    answered=st.booleans(),
    hung=st.sampled_from([None, False, True]),
)


class LifeOfAChild(RuleBasedStateMachine):
    """One child in a world that Hypothesis plays."""

    def __init__(self) -> None:
        super().__init__()
        self.child: ChildState = initial_state(POLICY)
        self.now = 0.0
        self.launching: int | None = None  # the run that is being launched
        self.living: int | None = None  # the run that has a process
        self.ignores_term = False
        self.terminated = False
        self.restarted_at: list[float] = []
        self.unproductive_at: list[float] = []  # restarts since the last productive run
        self.stopped_by_hand = False
        self.last_was_productive = False
        self.crashed = False  # the next launch is a restart that nobody requested

    @initialize(restart=st.sampled_from(RestartType), ready=st.booleans(), coupled=st.booleans())
    def make_and_start(self, restart: RestartType, ready: bool, coupled: bool) -> None:
        self.child = initial_state(POLICY, restart=restart, has_ready_probe=ready, coupled=coupled)
        self.send(Start())

    # --- the world ---------------------------------------------------------------------------------------

    def send(self, received: Input) -> None:
        before = self.child
        self.child, actions = step(before, received, self.now)
        if isinstance(received, Start | Restart):
            if received.reset:
                self.forget_restarts()  # a reset also clears the intensity's window
            if received.reset or before.state in (State.STOPPED, State.FAILED):
                self.crashed = False
        for action in actions:
            self.carry_out(action, before, received)

    def carry_out(self, action: Action, before: ChildState, received: Input) -> None:
        match action:
            case Launch(run):
                reset = isinstance(received, Start | Restart) and received.reset
                self.launch(run, before, reset=reset)
            case Terminate(run):
                assert run == self.living
                self.terminated = True
            case Kill(run):
                assert run == self.living
                assert self.terminated, "SIGKILL without SIGTERM before it"
                self.exit(ExitStatus(signal=9))
            case Emit("breaker_opened", _, fields):
                assert fields["open_s"] == POLICY.breaker.open_time(before.breaker.opens + 1)

    def launch(self, run: int, before: ChildState, reset: bool) -> None:
        assert self.launching is None, "two launches at once"
        assert self.living is None, "a launch while a process lives"
        assert run == before.run + 1
        assert not self.stopped_by_hand, "a launch of a child stopped by hand"
        assert not self.child.on_hold, "a launch of a child on hold"
        assert self.now >= self.child.no_start_before, "a launch before memory has settled"
        if before.breaker.state is BreakerState.OPEN and not reset:
            assert self.now >= before.breaker.until, "a launch past an open breaker"
            assert self.child.breaker.state is BreakerState.HALF_OPEN
        if self.crashed and self.child.breaker.state is BreakerState.CLOSED:
            self.restarted_at.append(self.now)
            self.unproductive_at += [] if self.last_was_productive else [self.now]
        self.launching, self.crashed = run, False

    def forget_restarts(self) -> None:
        self.restarted_at.clear()
        self.unproductive_at.clear()

    def exit(self, status: ExitStatus, productive: bool = False) -> None:
        run = self.living
        assert run is not None
        self.living, self.terminated = None, False
        self.note_crash_unless_planned()
        self.last_was_productive = productive
        if self.crashed and productive:
            self.unproductive_at.clear()
        self.send(Exited(run, status, "last line", productive))

    def note_crash_unless_planned(self) -> None:
        if self.child.state is not State.STOPPING or self.child.after_stop is AfterStop.RESTART_AS_DEAD:
            self.crashed = True

    # --- what may happen ---------------------------------------------------------------------------------

    @rule(seconds=st.one_of(st.floats(0, 5), st.floats(0, 300)))
    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(200):
            if self.child.timer_at is None or self.child.timer_at > end:
                break
            self.now = max(self.now, self.child.timer_at)
            self.send(TimerFired())
        else:
            raise AssertionError("the timer fires without end")
        self.now = end

    @precondition(lambda self: self.launching is not None)
    @rule(ignores_term=st.booleans())
    def succeed_launch(self, ignores_term: bool) -> None:
        run, self.launching = self.launching, None
        assert run is not None
        self.living, self.ignores_term, self.terminated = run, ignores_term, False
        self.send(Launched(run, 1000 + run))

    @precondition(lambda self: self.launching is not None)
    @rule()
    def fail_launch(self) -> None:
        run, self.launching = self.launching, None
        assert run is not None
        self.note_crash_unless_planned()
        self.last_was_productive = False
        self.send(LaunchFailed(run, "not found"))

    @precondition(lambda self: self.living is not None)
    @rule(status=STATUSES, productive=st.booleans())
    def end_process(self, status: ExitStatus, productive: bool) -> None:
        self.exit(status, productive)

    @precondition(lambda self: self.living is not None and self.terminated and not self.ignores_term)
    @rule()
    def obey_sigterm(self) -> None:
        self.exit(ExitStatus(signal=15))

    @rule(result=RESULTS)
    def answer_ready_probe(self, result: ProbeResult) -> None:
        self.send(ReadyProbed(self.child.run, result))

    @rule(result=RESULTS)
    def answer_health_probe(self, result: ProbeResult) -> None:
        self.send(HealthProbed(self.child.run, result))

    @rule(lives=st.lists(LIVES, max_size=14))
    def crash_in_a_loop(self, lives: list[tuple[ExitStatus, bool, float, bool]]) -> None:
        """Crash again and again: single rules alone seldom make a crash loop."""
        for status, ready, lives_s, productive in lives:
            if self.child.on_hold:
                self.send(ReleaseHold())
            if self.child.timer_at is not None and not self.child.alive:
                self.pass_time(max(0.0, self.child.timer_at - self.now))
            if self.launching is not None:
                self.succeed_launch(False)
            if self.living is not None and ready:
                self.send(ReadyProbed(self.child.run, ProbeResult(True)))
            self.pass_time(lives_s)
            if self.living is not None:
                self.exit(status, productive)

    @precondition(lambda self: self.child.run > 1)
    @rule(status=STATUSES)
    def report_late_about_an_earlier_process(self, status: ExitStatus) -> None:
        before = self.child
        self.send(Exited(self.child.run - 1, status))
        self.send(ReadyProbed(self.child.run - 1, ProbeResult(True)))
        self.send(HealthProbed(self.child.run - 1, ProbeResult(False)))
        assert self.child == before

    @rule(reset=st.booleans())
    def start(self, reset: bool) -> None:
        self.stopped_by_hand = False
        self.send(Start(reset=reset))

    @rule(by_hand=st.booleans())
    def stop(self, by_hand: bool) -> None:
        self.stopped_by_hand = self.stopped_by_hand or by_hand
        self.send(Stop(by_hand=by_hand))

    @rule(reset=st.booleans())
    def restart(self, reset: bool) -> None:
        self.send(Restart(reset=reset))

    @rule(slept_s=st.sampled_from([3.0, 60.0, 30000.0]))
    def sleep_machine(self, slept_s: float) -> None:
        self.forget_restarts()  # restarts from before a sleep do not count
        self.send(MachineWoke(slept_s))

    @rule()
    def hold(self) -> None:
        self.send(StopAndHold("a sibling died"))

    @rule()
    def release(self) -> None:
        self.send(ReleaseHold())

    @precondition(lambda self: not self.child.alive)
    @rule(adopt=st.booleans())
    def find_process(self, adopt: bool) -> None:
        self.living, self.ignores_term, self.terminated = self.child.run + 1, False, False
        self.crashed = False  # the found process takes the place of the next launch
        self.send(ProcessFound(77, 5.0, adopt))

    # --- what must hold ----------------------------------------------------------------------------------

    @invariant()
    def state_agrees_with_the_world(self) -> None:
        assert self.child.alive == (self.launching is not None or self.living is not None)
        assert (self.child.pid is not None) == (self.living is not None)
        busy_with_process = self.child.state in (State.STARTING, State.STOPPING) or self.child.up
        assert self.child.alive == busy_with_process

    @invariant()
    def restarts_stay_within_the_intensity(self) -> None:
        """Restarts count in full, unless a productive run came after them: then each counts a quarter."""
        most, window_s = POLICY.intensity.max_restarts, POLICY.intensity.window_s
        assert sum(self.now - at < window_s for at in self.unproductive_at) <= most
        assert sum(self.now - at < window_s for at in self.restarted_at) <= most / POLICY.productive_weight

    @invariant()
    def waits_stay_within_their_maximum(self) -> None:
        if self.child.state is State.BACKOFF:
            assert self.child.timer_at is not None
            longest = max(POLICY.backoff.max_s, POLICY.settle_after_kill_s)
            assert self.child.timer_at - self.now <= longest + ROUNDING
        if self.child.state is State.OPEN:
            assert self.child.timer_at is not None
            assert self.child.timer_at - self.now <= POLICY.breaker.max_open_s + ROUNDING

    @invariant()
    def wanted_child_without_process_always_has_a_timer(self) -> None:
        waiting = self.child.state in (State.STOPPED, State.BACKOFF, State.OPEN)
        if self.child.wanted and waiting and not self.child.on_hold:
            assert self.child.timer_at is not None

    @invariant()
    def nothing_starts_while_the_breaker_is_open(self) -> None:
        if self.child.state is State.STARTING:
            assert self.child.breaker.state is not BreakerState.OPEN

    def teardown(self) -> None:
        """Check that a stop ends with no process, even if the process ignores SIGTERM."""
        self.send(Stop(by_hand=False))
        if self.launching is not None:
            self.succeed_launch(True)
        for _ in range(5):
            if self.child.timer_at is not None:
                self.now = max(self.now, self.child.timer_at)
                self.send(TimerFired())
        assert self.child.state is State.STOPPED
        assert self.living is None
        assert not self.child.alive


LifeOfAChild.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestLifeOfAChild = LifeOfAChild.TestCase

CRASHES_PER_LIFE = 2500
INVARIANTS = (
    LifeOfAChild.state_agrees_with_the_world,
    LifeOfAChild.restarts_stay_within_the_intensity,
    LifeOfAChild.waits_stay_within_their_maximum,
    LifeOfAChild.wanted_child_without_process_always_has_a_timer,
    LifeOfAChild.nothing_starts_while_the_breaker_is_open,
)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=4, deadline=None)
def test_supervision_invariants_hold_through_2500_crashes_of_a_child_in_a_row(seed: int) -> None:
    """A child that never runs well for long: 2,500 crashes in a row, over some weeks of simulated time."""
    chance = random.Random(seed)
    life = LifeOfAChild()
    life.make_and_start(RestartType.PERMANENT, True, False)
    crashes = 0
    while crashes < CRASHES_PER_LIFE:
        if life.child.timer_at is not None and not life.child.alive:
            life.pass_time(max(0.0, life.child.timer_at - life.now))
        if life.launching is not None:
            if chance.random() < 0.2:
                crashes += 1
                life.fail_launch()
            else:
                life.succeed_launch(chance.random() < 0.3)
        if life.living is not None and chance.random() < 0.7:
            life.send(ReadyProbed(life.child.run, ProbeResult(True)))
        life.pass_time(chance.choice((0.0, 0.5, 5.0, 12.0, 40.0)))
        if life.living is not None:
            crashes += 1
            life.exit(ExitStatus(signal=9), chance.random() < 0.3)
        window_s = POLICY.intensity.window_s
        life.restarted_at = [at for at in life.restarted_at if life.now - at < window_s]
        life.unproductive_at = [at for at in life.unproductive_at if life.now - at < window_s]
        for invariant_holds in INVARIANTS:
            invariant_holds(life)
        assert life.child.state is not State.STOPPED  # the child is wanted all the time
    life.teardown()
