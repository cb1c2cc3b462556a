"""The judgement of a process that does not answer: busy if it works, hung if it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestal.supervision import ProbePolicy, ProcessActivity, ProcessVerdict, UnansweredQuestions
from vestal.supervision.health.silence import BUSY_CPU_S, ProcessJudgement

POLICY = ProbePolicy(interval_s=10, timeout_s=5, failures=3, busy_limit_s=120)
TIMEOUT_S = 3.0
CPU_S = 50.0
IDLE = ProcessActivity(
    cpu_s=CPU_S,
    wakeups=900,
    suspended=False,
    wants_cpu=False,
    waits_for_disk=False,
    waiting_connections=0,
    unread_connections=0,
    connections=4,
    open_files=40,
    max_open_files=256,
)


def silence(
    *steps: tuple[float, ProcessActivity], before: ProcessActivity = IDLE, timeout_s: float = TIMEOUT_S
) -> UnansweredQuestions:
    """Return the questions asked at these times, each with what the kernel showed when it was given up."""
    made = UnansweredQuestions()
    for asked_at, after in steps:
        made = made.add(asked_at, asked_at + timeout_s, before, after)
    return made


def judge(*steps: tuple[float, ProcessActivity], timeout_s: float = TIMEOUT_S) -> ProcessJudgement:
    return silence(*steps, timeout_s=timeout_s).judge(steps[-1][0] + timeout_s, POLICY)


def spinning(*asked_at: float) -> list[tuple[float, ProcessActivity]]:
    """Return steps of a process that uses one core all the time."""
    return [(at, replace(IDLE, cpu_s=CPU_S + at + TIMEOUT_S)) for at in asked_at]


SUSPENDED = replace(IDLE, suspended=True)
DEADLOCKED = replace(IDLE, waiting_connections=2)


def test_silent_process_that_parses_a_large_body_is_busy():
    """A body of 30 MB blocked the gateway's event loop for 4 s; a recovery pass asked twice and ended it."""
    judgement = judge(*spinning(0, 3))
    assert judgement.verdict is ProcessVerdict.BUSY
    assert "no answer for 6 s" in judgement.evidence
    assert "3.0 s of CPU time in 3.0 s" in judgement.evidence
    assert "ended after 120 s" in judgement.evidence


def test_silent_process_that_uses_cpu_counts_as_busy_until_the_silence_limit_and_as_hung_from_then_on():
    assert judge(*spinning(*range(0, 116, 10))).verdict is ProcessVerdict.BUSY
    judgement = judge(*spinning(*range(0, 121, 10)))
    assert judgement.verdict is ProcessVerdict.HUNG
    assert "longer than 120 s, although it works" in judgement.evidence


def test_suspended_process_is_hung_after_two_unanswered_health_checks():
    assert judge((0, SUSPENDED)).verdict is ProcessVerdict.UNDECIDED
    judgement = judge((0, SUSPENDED), (3, SUSPENDED))
    assert judgement.verdict is ProcessVerdict.HUNG
    assert "suspended (SIGSTOP)" in judgement.evidence


def test_silent_process_that_is_throttled_by_suspensions_but_works_in_between_is_busy():
    """Tools that throttle a process send SIGSTOP and SIGCONT several times a second."""
    steps = [(at, replace(activity, suspended=True)) for at, activity in spinning(0, 3, 6)]
    assert judge(*steps).verdict is ProcessVerdict.BUSY


def test_deadlocked_process_with_waiting_connections_is_hung_after_three_health_checks():
    assert judge((0, DEADLOCKED), (3, DEADLOCKED)).verdict is ProcessVerdict.UNDECIDED
    judgement = judge((0, DEADLOCKED), (3, DEADLOCKED), (6, DEADLOCKED))
    assert judgement.verdict is ProcessVerdict.HUNG
    assert "does not work (0.00 s of CPU time" in judgement.evidence
    assert "waiting to be accepted: 2" in judgement.evidence


def test_deadlocked_process_with_an_unread_request_is_hung_after_three_health_checks():
    steps = [(at, replace(IDLE, unread_connections=1)) for at in (0.0, 3.0, 6.0)]
    assert judge(*steps).verdict is ProcessVerdict.HUNG


def test_silent_idle_process_with_unreadable_connection_queues_is_hung_after_three_health_checks_10_s_apart():
    unknown = replace(IDLE, waiting_connections=None, unread_connections=None, wakeups=None)
    assert judge((0, unknown), (3, unknown), (6, unknown)).verdict is ProcessVerdict.UNDECIDED
    assert judge((0, unknown), (13, unknown)).verdict is ProcessVerdict.UNDECIDED
    assert judge((0, unknown), (13, unknown), (26, unknown)).verdict is ProcessVerdict.HUNG


def test_silent_process_of_unknown_activity_counts_as_hung_after_three_unanswered_health_checks():
    nothing = ProcessActivity()
    steps = [(0.0, nothing), (13.0, nothing), (26.0, nothing)]
    judgement = silence(*steps, before=nothing).judge(29.0, POLICY)
    assert judgement.verdict is ProcessVerdict.HUNG
    assert "not known to work" in judgement.evidence


def test_silent_process_out_of_file_descriptors_counts_as_busy_while_its_event_loop_runs():
    """300 idle connections at macOS's 256 descriptors: no more are accepted, and a recovery pass once ended
    the process.
    """
    full = replace(IDLE, waiting_connections=45, open_files=256)
    steps = [(at, replace(full, wakeups=900 + 2 * (at + 3))) for at in (0, 3, 6)]
    judgement = judge(*steps)
    assert judgement.verdict is ProcessVerdict.BUSY
    assert "accepts no connection; 256 of 256 file descriptors are open" in judgement.evidence
    assert "waiting to be accepted: 45" in judgement.evidence


def test_silent_process_with_a_running_event_loop_counts_as_hung_if_no_connection_waits_to_be_accepted():
    steps = [(at, replace(IDLE, wakeups=900 + 2 * (at + 3))) for at in (0, 10, 20)]
    assert judge(*steps[:2]).verdict is ProcessVerdict.UNDECIDED
    assert judge(*steps).verdict is ProcessVerdict.HUNG


@pytest.mark.parametrize("state", ["wants_cpu", "waits_for_disk"])
def test_silent_process_that_waits_for_a_cpu_or_the_disk_is_busy(state: str):
    assert judge(*[(at, replace(IDLE, **{state: True})) for at in (0, 3, 6)]).verdict is ProcessVerdict.BUSY


def test_process_that_refuses_health_checks_is_busy_if_it_uses_cpu_between_them_and_hung_if_it_stays_idle():
    """A refusal takes a millisecond, in which no CPU time can be seen."""
    steps = [(0.0, IDLE), (2.0, replace(IDLE, cpu_s=51.0)), (4.0, replace(IDLE, cpu_s=52.0))]
    assert judge(*steps, timeout_s=0.001).verdict is ProcessVerdict.BUSY
    assert judge((0, IDLE), (2, IDLE), (4, IDLE), timeout_s=0.001).verdict is ProcessVerdict.UNDECIDED
    assert judge((0, IDLE), (10, IDLE), (20, IDLE), timeout_s=0.001).verdict is ProcessVerdict.HUNG


def test_health_check_whose_caller_was_itself_suspended_decides_nothing():
    """The program that asked was itself suspended, and could not have read an answer."""
    made = silence((0, DEADLOCKED), (100, DEADLOCKED), timeout_s=9.0).add(110, 113, IDLE, DEADLOCKED)
    assert replace_limit(made, 1000.0).verdict is ProcessVerdict.UNDECIDED


def replace_limit(made: UnansweredQuestions, limit_s: float) -> ProcessJudgement:
    return made.judge(made.questions[-1].given_up_at, replace(POLICY, busy_limit_s=limit_s))


COUNTS = st.none() | st.integers(0, 300)
FLAGS = st.sampled_from([None, False, True])
AFTER = st.builds(
    ProcessActivity,
    cpu_s=st.none() | st.floats(0, 0.5),
    wakeups=st.none() | st.integers(0, 20),
    suspended=FLAGS,
    wants_cpu=FLAGS,
    waits_for_disk=FLAGS,
    waiting_connections=COUNTS,
    unread_connections=COUNTS,
    connections=COUNTS,
    open_files=COUNTS,
    max_open_files=COUNTS,
)
QUESTIONS = st.lists(st.tuples(st.floats(0, 30), st.floats(0.001, 9), AFTER), min_size=1, max_size=30)


def _history(drawn: Sequence[tuple[float, float, ProcessActivity]]) -> UnansweredQuestions:
    """Return questions with these pauses and durations; CPU time and wakeups only grow."""
    made, now, last = UnansweredQuestions(), 0.0, replace(IDLE, cpu_s=0.0, wakeups=0)
    for pause_s, took_s, step in drawn:
        after = replace(
            step,
            cpu_s=None if step.cpu_s is None else (last.cpu_s or 0.0) + step.cpu_s,
            wakeups=None if step.wakeups is None else (last.wakeups or 0) + step.wakeups,
        )
        made = made.add(now + pause_s, now + pause_s + took_s, last, after)
        now, last = now + pause_s + took_s, after
    return made


@given(QUESTIONS)
def test_silent_process_counts_as_hung_at_the_silence_limit_and_earlier_only_if_it_does_no_work(drawn):
    made = _history(drawn)
    last = made.questions[-1]
    silent_s = last.given_up_at - made.questions[0].asked_at
    judgement = made.judge(last.given_up_at, POLICY)
    assert judgement.evidence
    before, after = last.before.cpu_s, last.after.cpu_s
    used_s = after - before if before is not None and after is not None else 0.0
    if used_s >= max(BUSY_CPU_S, last.window_s * 0.02) and silent_s < POLICY.busy_limit_s:
        assert judgement.verdict is ProcessVerdict.BUSY
    if len(made.questions) > 1 and silent_s >= POLICY.busy_limit_s:
        assert judgement.verdict is ProcessVerdict.HUNG
    if judgement.verdict is ProcessVerdict.HUNG:
        assert len(drawn) >= 2
        assert silent_s >= POLICY.busy_limit_s or last.after.suspended or len(drawn) >= POLICY.failures


@given(QUESTIONS, st.integers(2, 5))
def test_process_counts_as_hung_from_the_second_health_check_that_it_misses_while_suspended(drawn, more):
    made = _history(drawn)
    frozen = replace(made.questions[-1].after, suspended=True)
    now = made.questions[-1].given_up_at
    verdicts = []
    for number in range(more):
        asked_at = now + 3.0 * number
        made = made.add(asked_at, asked_at + TIMEOUT_S, frozen, frozen)
        verdicts.append(made.judge(asked_at + TIMEOUT_S, POLICY).verdict)
    assert set(verdicts[1:]) == {ProcessVerdict.HUNG}
