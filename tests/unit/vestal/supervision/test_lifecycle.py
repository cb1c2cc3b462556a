"""The lifecycle's table, row by row. `drive` plays a child's life; time is a number."""

from __future__ import annotations

from dataclasses import replace

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
from vestal.supervision.lifecycle.child_state import ChildState, Watch, initial_state
from vestal.supervision.lifecycle.messages import (
    Action,
    Adopted,
    Emit,
    Exited,
    Fell,
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
    backoff=Backoff(2, 60),
    intensity=Intensity(5, 300),
    breaker=BreakerPolicy(failures=3, open_s=60, max_open_s=1800),
    start_timeout_s=30,
    stop_timeout_s=10,
    stable_after_s=10,
    probe=ProbePolicy(interval_s=10, timeout_s=5, failures=3),
)
CRASH = ExitStatus(signal=11)
OK = ProbeResult(True)


class Life:
    """One child played by hand: `tell` feeds the lifecycle, `last` is what it asked for then."""

    def __init__(self, model: ChildState | None = None, policy: RestartPolicy = POLICY) -> None:
        self.m = model or initial_state(policy)
        self.now = 0.0
        self.last: tuple[Action, ...] = ()

    def tell(self, news: Input, at: float | None = None) -> Life:
        self.now = self.now if at is None else at
        self.m, self.last = step(self.m, news, self.now)
        return self

    def due(self) -> Life:
        """Time moves to the next wake-up."""
        assert self.m.wake_at is not None
        return self.tell(Tick(), max(self.now, self.m.wake_at))

    def launched(self) -> Life:
        return self.tell(Launched(self.m.run, 100 + self.m.run))

    def up(self, at: float | None = None) -> Life:
        self.launched()
        return self.tell(ReadyAnswered(self.m.run, OK), at)

    def dies(self, status: ExitStatus = CRASH, at: float | None = None, words: str = "") -> Life:
        return self.tell(Exited(self.m.run, status, words), at)

    def asked(self, kind: type) -> bool:
        return any(isinstance(action, kind) for action in self.last)

    def told(self, event: str) -> bool:
        return any(isinstance(action, Emit) and action.event == event for action in self.last)


def running(policy: RestartPolicy = POLICY) -> Life:
    return Life(policy=policy).tell(Start()).up()


# --- restarts --------------------------------------------------------------------------------------------


def test_start_of_a_stopped_child_launches_and_waits_for_ready():
    life = Life().tell(Start())
    assert life.asked(Launch)
    assert life.launched().m.watch is Watch.READY
    assert life.tell(ReadyAnswered(1, OK)).m.state is State.READY
    assert life.m.watch is Watch.HEALTH


def test_death_after_a_stable_run_is_answered_at_once_and_launch_comes_first():
    life = running().dies(at=10)
    assert life.m.state is State.STARTING
    asked = [action for action in life.last if isinstance(action, Launch) or not isinstance(action, Emit)]
    assert isinstance(asked[0], Launch)


def test_deaths_after_short_runs_wait_2_4_8_seconds():
    life = running()
    delays = []
    for _ in range(3):
        life.dies()
        assert life.m.state is State.BACKOFF
        delays.append((life.m.wake_at or 0) - life.now)
        life.due().up()
    assert delays == [2, 4, 8]


def test_stable_run_starts_the_backoff_over():
    life = running().dies().due().up().dies().due().up()
    life.dies(at=life.now + 10)
    assert life.m.state is State.STARTING
    life.up().dies()
    assert life.m.wake_at == life.now + 2


def test_restarts_past_the_intensity_open_the_breaker_though_every_start_succeeded():
    life = running()
    for n in range(1, 6):
        life.dies(at=10.0 * n).up()
    life.dies(at=60)
    assert life.m.state is State.OPEN
    assert life.told("breaker_opened")
    assert life.m.wake_at == 120


def test_failed_starts_in_a_row_open_the_breaker_long_before_the_intensity_does():
    """A start that takes 36 s to fail never reaches 5 restarts in 5 minutes."""
    life = Life().tell(Start()).launched().due().dies()  # not ready in time
    life.due().launched().due().dies()
    life.due().launched().due().dies()
    assert life.m.state is State.OPEN


def test_launch_that_fails_counts_as_a_failed_start():
    life = Life().tell(Start())
    for _ in range(2):
        life.tell(LaunchFailed(life.m.run, "the program x was not found")).due()
    life.tell(LaunchFailed(life.m.run, "the program x was not found"))
    assert life.m.state is State.OPEN
    assert life.m.detail == "the program x was not found"


def opened() -> Life:
    life = Life().tell(Start())
    for n in range(3):
        life.launched().dies(ExitStatus(code=1), words="port 11435 is held by python3")
        if n < 2:
            life.due()
    assert life.m.state is State.OPEN
    return life


def test_open_ends_in_one_trial_and_a_trial_that_comes_up_closes():
    life = opened().due()
    assert life.m.breaker.state is BreakerState.HALF_OPEN
    assert life.asked(Launch)
    life.up()
    assert life.told("breaker_closed")
    assert life.m.breaker.state is BreakerState.CLOSED


def test_trial_that_dies_opens_for_twice_as_long():
    life = opened().due().launched().dies()
    assert life.m.state is State.OPEN
    assert life.m.wake_at == life.now + 120


def test_trial_that_is_not_ready_in_time_opens_for_twice_as_long():
    life = opened().due().launched().due()
    assert life.m.state is State.STOPPING
    assert life.dies().m.wake_at == life.now + 120


def test_failed_start_says_how_it_ended_and_its_last_words():
    assert opened().m.detail == "exit code 1: port 11435 is held by python3"


def test_exit_that_no_restart_mends_is_failed_with_its_last_words():
    life = running().dies(ExitStatus(code=78), words="unknown key mlx.prot")
    assert life.m.state is State.FAILED
    assert life.told("child_gave_up")
    assert life.m.detail == "exit code 78: unknown key mlx.prot"
    assert life.m.wake_at is None
    assert life.tell(Start()).asked(Launch)


def test_transient_child_that_ends_well_is_not_restarted_and_one_that_crashes_is():
    base = initial_state(POLICY, restart=RestartType.TRANSIENT)
    assert Life(base).tell(Start()).up().dies(ExitStatus(code=0), at=20).m.state is State.STOPPED
    assert Life(base).tell(Start()).up().dies(ExitStatus(code=1), at=20).m.state is State.STARTING
    assert Life(base).tell(Start()).up().dies(ExitStatus(), at=20).m.state is State.STARTING


def test_temporary_child_is_never_restarted():
    life = Life(initial_state(POLICY, restart=RestartType.TEMPORARY)).tell(Start()).up().dies(at=20)
    assert life.m.state is State.STOPPED


def test_start_after_a_sigkill_waits_for_memory_to_settle():
    life = running(replace(POLICY, settle_after_kill_s=5)).dies(ExitStatus(signal=9), at=10)
    assert life.m.state is State.BACKOFF
    assert life.m.wake_at == 15
    assert running(replace(POLICY, settle_after_kill_s=5)).dies(at=10).m.state is State.STARTING


def test_restart_asked_for_after_a_kill_waits_for_memory_too():
    life = running(replace(POLICY, settle_after_kill_s=5)).tell(Stop()).due().dies(ExitStatus(signal=9))
    life.tell(Start())
    assert life.m.state is State.BACKOFF
    assert life.due().asked(Launch)


# --- probes ----------------------------------------------------------------------------------------------


def loading(progress: float | None = None) -> ProbeResult:
    return ProbeResult(False, "loading", State.STARTING, progress)


def test_start_that_loads_is_given_more_time():
    """llama-swap 92: a start limit shorter than a model's load never let it up."""
    life = Life().tell(Start()).launched()
    for at in range(20, 200, 20):
        life.tell(ReadyAnswered(1, loading()), at).tell(Tick(), at + 10)
    assert life.m.state is State.STARTING


def test_start_that_loads_without_getting_on_runs_out_of_time():
    life = Life().tell(Start()).launched()
    life.tell(ReadyAnswered(1, loading(0.4)), 20).tell(ReadyAnswered(1, loading(0.4)), 40)
    assert life.m.wake_at == 50
    assert life.due().told("child_start_timed_out")
    assert life.asked(Terminate)


def test_health_failing_three_times_in_a_row_ends_and_restarts_it():
    life = running()
    for _ in range(2):
        assert not life.tell(HealthAnswered(1, ProbeResult(False, "no answer within 5 s")), 20).last
    life.tell(HealthAnswered(1, ProbeResult(False, "no answer within 5 s")))
    assert life.told("health_failed")
    assert life.asked(Terminate)
    assert life.due().asked(Kill)
    assert life.dies(ExitStatus(signal=9)).asked(Launch)


def test_health_that_is_busy_or_loading_starts_the_count_over():
    life = running()
    bad = HealthAnswered(1, ProbeResult(False))
    life.tell(bad).tell(bad).tell(HealthAnswered(1, ProbeResult(False, "prefill", State.BUSY)))
    assert life.m.failures == 0
    assert life.m.state is State.BUSY
    life.tell(HealthAnswered(1, loading()))
    assert life.m.state is State.BUSY
    assert life.tell(HealthAnswered(1, OK)).m.state is State.READY


def test_news_of_an_earlier_process_is_ignored():
    life = running().dies(at=20).launched()
    before = life.m
    for late in (
        Exited(1, CRASH),
        ReadyAnswered(1, OK),
        HealthAnswered(1, ProbeResult(False)),
        Launched(1, 5),
    ):
        life.tell(late)
        assert life.m == before
        assert not life.last


def test_child_without_ready_probe_is_ready_once_it_runs():
    assert Life(initial_state(POLICY, ready_probed=False)).tell(Start()).launched().m.state is State.READY


# --- stops and starts that cross -------------------------------------------------------------------------


def test_stop_is_term_then_kill_after_stop_timeout_s():
    life = running().tell(Stop(), 20)
    assert life.asked(Terminate)
    assert not life.tell(Tick(), 29.9).last
    assert life.tell(Tick(), 30).asked(Kill)
    assert life.dies(ExitStatus(signal=9)).m.state is State.STOPPED


def test_planned_stop_gets_its_own_time_and_a_hung_child_does_not():
    policy = replace(POLICY, planned_stop_timeout_s=40)
    assert running(policy).tell(Stop(), 20).m.wake_at == 60
    life = running(policy)
    for _ in range(3):
        life.tell(HealthAnswered(1, ProbeResult(False)), 20)
    assert life.m.wake_at == 30


def test_stop_during_a_launch_ends_what_the_launch_brings():
    life = Life().tell(Start()).tell(Stop())
    assert not life.asked(Terminate)
    assert life.launched().asked(Terminate)
    assert life.dies().m.state is State.STOPPED


def test_stop_during_a_launch_that_fails_is_stopped():
    assert Life().tell(Start()).tell(Stop()).tell(LaunchFailed(1, "no")).m.state is State.STOPPED


def test_stop_in_backoff_and_behind_an_open_breaker_is_stopped_at_once():
    assert running().dies().tell(Stop()).m.state is State.STOPPED
    life = opened().tell(Stop())
    assert life.m.state is State.STOPPED
    assert life.m.wake_at is None


def test_start_behind_a_breaker_still_open_waits_unless_reset():
    life = opened().tell(Stop()).tell(Start())
    assert life.m.state is State.OPEN
    assert life.tell(Renew()).m.state is State.OPEN
    assert life.tell(Start(reset=True)).asked(Launch)
    assert life.m.breaker.state is BreakerState.CLOSED


def test_start_during_stopping_starts_once_it_is_down():
    life = running().tell(Stop(), 20).tell(Start())
    assert not life.asked(Launch)
    assert life.dies(ExitStatus(signal=15)).asked(Launch)


def test_stop_by_hand_is_sticky_against_restarts_and_supervisors():
    life = running().tell(Stop(), 20).dies()
    for loop in (Renew(), Release(), Tick(), Renew(reset=True)):
        assert not life.tell(loop).asked(Launch)
    assert life.tell(Stop("the supervisor stops", by_hand=False)).m.by_hand
    assert life.tell(Start()).asked(Launch)


def test_restart_during_a_stop_by_hand_does_not_undo_it():
    assert running().tell(Stop(), 20).tell(Renew()).dies().m.state is State.STOPPED


def test_restart_asked_for_is_not_charged():
    life = running()
    for n in range(20):
        life.tell(Renew(), n).dies(ExitStatus(signal=15)).up()
    assert life.m.state is State.READY
    assert life.m.restarts == 20
    assert not life.m.intensity.times


def test_restart_in_backoff_comes_in_its_own_time():
    life = running().dies().tell(Renew())
    assert life.m.state is State.BACKOFF
    assert life.tell(Renew(reset=True)).asked(Launch)


def test_death_while_stopping_is_the_end_that_was_asked_for():
    life = running().tell(Stop(), 20).dies(ExitStatus(code=78))
    assert life.m.state is State.STOPPED


def test_process_that_survives_sigkill_is_said_so_and_nothing_is_launched_beside_it():
    life = running().tell(Stop(), 20).due().due()
    assert life.asked(Kill)
    assert "does not end on SIGKILL" in life.m.detail
    assert not life.tell(Start()).asked(Launch)


# --- adoption, holding -----------------------------------------------------------------------------------


def test_adopted_process_is_judged_by_ready_and_keeps_its_age():
    life = Life()
    life.now = 100
    life.tell(Adopted(77, age_s=50))
    assert life.m.pid == 77
    assert life.m.started_at == 50
    assert life.tell(ReadyAnswered(life.m.run, OK)).m.state is State.READY


def test_process_found_that_may_not_stay_is_ended_before_the_start():
    life = Life().tell(Adopted(77, keep=False))
    assert life.asked(Terminate)
    assert not life.asked(Launch)
    assert life.dies(ExitStatus()).asked(Launch)


def test_process_found_of_a_child_stopped_by_hand_is_ended_and_stays_so():
    life = Life(replace(initial_state(POLICY), by_hand=True)).tell(Adopted(77))
    assert life.asked(Terminate)
    assert life.dies(ExitStatus()).m.state is State.STOPPED


def test_process_found_behind_an_open_breaker_is_the_trial():
    life = opened().tell(Adopted(77))
    assert life.m.breaker.state is BreakerState.HALF_OPEN
    assert life.tell(ReadyAnswered(life.m.run, OK)).m.breaker.state is BreakerState.CLOSED


def test_coupled_child_that_dies_says_so_and_waits_for_its_release():
    life = Life(initial_state(POLICY, coupled=True)).tell(Start()).up().dies(at=20)
    assert life.asked(Fell)
    assert not life.asked(Launch)
    assert life.tell(Release()).asked(Launch)


def test_held_child_in_backoff_waits_for_both_time_and_release():
    life = Life(initial_state(POLICY, coupled=True)).tell(Start()).up().dies()
    assert life.m.state is State.BACKOFF
    assert life.tell(Release()).m.state is State.BACKOFF
    assert life.due().asked(Launch)


def test_held_child_is_ended_and_comes_back_on_release():
    life = running().tell(Hold("a died"), 20)
    assert life.asked(Terminate)
    life.dies(ExitStatus(signal=15))
    assert life.m.state is State.STOPPED
    assert life.tell(Release()).asked(Launch)


def test_failures_from_before_a_sleep_do_not_count():
    life = running()
    for _ in range(2):
        life.tell(HealthAnswered(life.m.run, ProbeResult(False)), 50)
    life.tell(Woke(3600), 60)
    life.tell(HealthAnswered(life.m.run, ProbeResult(False)), 70)
    assert (life.m.up, life.m.failures) == (True, 1)


def test_failed_probe_within_the_grace_after_a_sleep_says_nothing():
    life = running().tell(Woke(3600), 60)
    for at in (60, 62, 64):
        life.tell(HealthAnswered(life.m.run, ProbeResult(False)), at)
    assert (life.m.up, life.m.failures) == (True, 0)
    for at in (66, 67, 68):
        life.tell(HealthAnswered(life.m.run, ProbeResult(False)), at)
    assert life.asked(Terminate)


def test_time_asleep_is_open_time_that_went_by():
    life = opened()
    life.tell(Woke(20), life.m.breaker.until - 50)
    assert life.m.state is State.OPEN
    assert life.m.wake_at == life.m.breaker.until == life.now + 30
    life.tell(Woke(3600))
    assert life.m.wake_at == life.now
    assert life.due().asked(Launch)
    assert life.m.breaker.state is BreakerState.HALF_OPEN


def test_restarts_from_before_a_sleep_leave_the_window():
    life = running()
    for at in (20, 40, 60, 80):
        life.dies(at=at).up()
    assert life.m.intensity.times
    life.tell(Woke(3600), 90)
    assert (life.m.intensity.times, life.m.attempt) == ((), 0)


def test_start_that_a_sleep_interrupted_has_its_time_again():
    life = Life().tell(Start()).launched().tell(Woke(600), 29)
    assert life.m.wake_at == 29 + POLICY.start_timeout_s
