"""The pace of webhook posts, the retries of a step, the nightly schedule and the memory guard."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import memory_guard
from orchestrator.cycles import schedule
from orchestrator.errors import (
    BackendBusy,
    BackendFailed,
    BackendUnavailable,
    DatabaseFailed,
    EmptyAnswer,
    EngineCrashed,
    ModelMissing,
    OrchestratorError,
)
from orchestrator.memory_guard import ContainerMemory, batch_size
from orchestrator.recovery_webhook.policy import ListenerAnswer, ReportPace
from orchestrator.tasks.step_retry import (
    FIRST_DELAY_S,
    MAX_ASKED_DELAY_S,
    MAX_BAD_ANSWERS,
    MAX_DELAY_S,
    MAX_DOWN_S,
    StepRetry,
)

DOWN = ("mlx",)


def test_first_outage_report_is_posted_at_once():
    assert ReportPace().may_post(0.0, DOWN)
    assert not ReportPace().may_post(0.0, ())


def test_pause_between_outage_reports_doubles_up_to_the_health_monitor_interval():
    pace, now, gaps = ReportPace(), 0.0, []
    for _ in range(8):
        pace = pace.after(ListenerAnswer(202), now, DOWN, interval_s=100)
        gaps.append(pace.due_at - now)
        now = pace.due_at
    assert gaps == [5, 10, 20, 40, 80, 100, 100, 100]


def test_outage_report_of_another_backend_is_posted_at_once():
    pace = ReportPace().after(ListenerAnswer(202, retry_after_s=60), 0.0, DOWN, 300)
    assert not pace.may_post(1.0, DOWN)
    assert pace.may_post(1.0, ("mlx", "ollama"))


def test_no_outage_report_follows_a_refusal_before_its_retry_after_time_even_for_another_backend():
    pace = ReportPace().after(ListenerAnswer(429, retry_after_s=60), 0.0, DOWN, 5)
    assert not pace.may_post(59.0, ("mlx", "ollama"))
    assert not pace.seen(()).may_post(59.0, DOWN)
    assert pace.may_post(60.0, DOWN)


def test_outage_report_of_a_backend_that_failed_again_is_posted_at_once():
    pace = ReportPace().after(ListenerAnswer(202), 0.0, ("mlx", "ollama"), 300)
    assert pace.seen(("ollama",)).may_post(1.0, ("mlx", "ollama"))


def test_outage_report_answered_with_401_is_repeated_only_after_the_whole_health_monitor_interval():
    assert ReportPace().after(ListenerAnswer(401), 0.0, DOWN, 300).due_at == 300


@pytest.mark.parametrize("state", ["open", "manual_stop"])
def test_outage_that_only_a_person_can_end_is_reported_again_only_after_the_health_monitor_interval(
    state: str,
):
    pace = ReportPace().after(ListenerAnswer(202, backends=dict.fromkeys(DOWN, state)), 0.0, DOWN, 300)
    assert not pace.may_post(299.0, DOWN)
    assert pace.may_post(300.0, DOWN)
    assert pace.may_post(1.0, ("mlx", "ollama"))  # another backend down is posted at once


def test_outage_report_is_followed_by_the_longest_pause_only_if_a_person_must_start_every_backend_in_it():
    both = ("mlx", "ollama")
    states = {"mlx": "manual_stop", "ollama": "open"}
    assert ReportPace().after(ListenerAnswer(202, 5, backends=states), 0.0, both, 300).due_at == 300
    states = {"mlx": "manual_stop"}
    assert ReportPace().after(ListenerAnswer(202, 5, backends=states), 0.0, both, 300).due_at == 5
    states = {"mlx": "recovering"}
    assert ReportPace().after(ListenerAnswer(202, 10, backends=states), 0.0, DOWN, 300).due_at == 10


@pytest.mark.parametrize("status", [429, 503])
def test_outage_report_refused_with_429_or_503_is_sent_again_only_after_the_retry_after_time(status: int):
    pace = ReportPace().after(ListenerAnswer(status, 30.0), 0.0, DOWN, 300)
    assert not pace.may_post(29.0, ("mlx", "ollama"))
    assert pace.may_post(30.0, DOWN)


@given(st.lists(st.floats(0.01, 400), max_size=60), st.floats(1, 600))
def test_outage_reports_are_at_least_the_shortest_pause_apart_however_often_health_is_checked(
    steps: list[float], interval_s: float
):
    pace, now, posts = ReportPace(), 0.0, []
    for step in steps:
        now += step
        pace = pace.seen(DOWN)
        if pace.may_post(now, DOWN):
            posts.append(now)
            pace = pace.after(ListenerAnswer(0), now, DOWN, interval_s)
    assert all(b - a >= min(5.0, interval_s) - 1e-6 for a, b in zip(posts, posts[1:], strict=False))


@pytest.mark.parametrize("away", [BackendUnavailable("down"), DatabaseFailed("away")])
def test_task_step_with_an_unavailable_service_is_retried_for_a_day(away: OrchestratorError):
    retry = StepRetry()
    for now in range(0, 3600, 30):
        retry = retry.after(away, float(now))
        assert not retry.exhausted(away, float(now))
    assert retry.exhausted(away, MAX_DOWN_S + 1)
    assert retry.delay_s == MAX_DELAY_S


@pytest.mark.parametrize("error", [EmptyAnswer("empty"), BackendFailed("500")])
def test_task_step_with_too_many_bad_answers_is_not_retried(error: EmptyAnswer | BackendFailed):
    retry = StepRetry()
    for n in range(MAX_BAD_ANSWERS):
        assert not retry.exhausted(error, 0.0), n
        retry = retry.after(error, 0.0)
    assert retry.exhausted(error, 0.0)


def test_task_step_with_a_busy_backend_waits_as_long_as_it_asks_up_to_five_minutes():
    """A task failed after seven minutes in which the backend had only been busy."""
    assert StepRetry().after(BackendBusy("busy", 60.0), 0.0).delay_s == 60.0
    assert StepRetry().after(BackendBusy("busy", 9000.0), 0.0).delay_s == MAX_ASKED_DELAY_S
    assert StepRetry().after(BackendBusy("busy"), 0.0).delay_s == FIRST_DELAY_S
    assert StepRetry().after(BackendBusy("busy", 60.0), 0.0).after(EmptyAnswer(""), 0.0).delay_s < 2.0


def test_task_step_whose_request_kills_the_engine_is_tried_once_more():
    """It was tried twelve times, and three engines died each time."""
    crashed = EngineCrashed("the engine died three times")
    retry = StepRetry().after(crashed, 0.0)
    assert not retry.exhausted(crashed, 0.0)
    assert retry.after(BackendUnavailable("down"), 1.0).after(crashed, 2.0).exhausted(crashed, 2.0)


def test_task_step_with_a_missing_model_is_retried_for_half_an_hour():
    missing = ModelMissing("no such model")
    retry = StepRetry().after(missing, 0.0)
    assert not retry.exhausted(missing, 1700.0)
    assert retry.exhausted(missing, 1801.0)


def test_task_step_whose_model_is_missing_after_a_long_outage_is_retried_for_half_an_hour_from_then_on():
    """After an hour without backends, one without the model was back first, and the task failed at once."""
    away, missing = BackendUnavailable("down"), ModelMissing("no such model")
    retry = StepRetry().after(away, 0.0).after(away, 3600.0).after(missing, 3605.0)
    assert not retry.exhausted(missing, 3605.0 + 1700.0)
    assert retry.exhausted(missing, 3605.0 + 1801.0)
    again = retry.after(away, 5300.0).after(missing, 5310.0)
    assert not again.exhausted(missing, 5310.0 + 1700.0)


def test_task_step_gives_up_a_day_after_its_first_failure_although_its_model_was_missing_in_between():
    away, missing = BackendUnavailable("down"), ModelMissing("no such model")
    retry = StepRetry().after(away, 0.0).after(missing, 10.0)
    assert retry.exhausted(away, MAX_DOWN_S + 1)


def test_nightly_schedule_is_due_once_a_night_and_after_a_missed_night():
    noon = datetime(2026, 5, 4, 12)
    assert not schedule.due(datetime(2026, 5, 4, 3, 1), noon, hour=3)
    assert schedule.due(datetime(2026, 5, 4, 2, 59), noon, hour=3)
    assert schedule.due(noon - timedelta(days=9), noon, hour=3)
    assert schedule.next_slot(noon, 3) == datetime(2026, 5, 5, 3)
    assert schedule.last_slot(datetime(2026, 5, 4, 2), 3) == datetime(2026, 5, 3, 3)


def test_nightly_schedule_is_due_if_the_last_run_was_at_a_wrong_time_of_the_clock():
    """After a run that was dated years ahead, there was none until then."""
    noon = datetime(2026, 5, 4, 12)
    assert schedule.due(noon + timedelta(days=900), noon, hour=3)
    assert not schedule.due(noon + timedelta(hours=1), noon, hour=3)  # the end of summer time


def test_embedding_batch_size_shrinks_from_80_percent_memory_and_is_zero_from_90():
    assert [batch_size(32, f) for f in (0.0, 0.79, 0.80, 0.85, 0.899, 0.90, 1.2)] == [32, 32, 16, 8, 1, 0, 0]


@given(st.integers(1, 512), st.floats(0, 2))
def test_embedding_batch_size_is_zero_if_and_only_if_memory_use_is_at_or_above_the_pause_limit(
    wanted: int, fraction: float
):
    size = batch_size(wanted, fraction)
    assert 0 <= size <= wanted
    assert (size == 0) == (fraction >= memory_guard.PAUSE_AT)


def test_fewer_task_steps_may_begin_from_80_percent_memory_and_none_from_90():
    def most_running(fraction: float) -> int:
        return next(n for n in range(99) if not memory_guard.step_may_begin(n, 8, fraction, 0.0))

    assert memory_guard.step_may_begin(98, 8, 0.79, 0.0)
    assert [most_running(f) for f in (0.80, 0.85, 0.899, 0.90, 1.2)] == [4, 2, 1, 0, 0]


def test_task_step_that_waited_the_maximum_time_for_memory_may_begin_if_no_other_step_runs():
    long = memory_guard.MAX_HOLD_S
    assert not memory_guard.step_may_begin(0, 8, 0.95, long - 1)
    assert memory_guard.step_may_begin(0, 8, 0.95, long)
    assert not memory_guard.step_may_begin(1, 8, 0.95, 99 * long)


def write(root: Path, **files: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name.replace("__", ".")).write_text(text)


def test_container_memory_read_from_cgroup_2_excludes_inactive_files(tmp_path: Path):
    write(
        tmp_path, memory__current="1000\n", memory__max="2000\n", memory__stat="anon 5\ninactive_file 200\n"
    )
    assert memory_guard.read(tmp_path) == ContainerMemory(800, 2000)
    assert ContainerMemory(800, 2000).fraction == 0.4


def test_container_memory_read_from_cgroup_1_excludes_inactive_files(tmp_path: Path):
    write(
        tmp_path / "memory",
        memory__usage_in_bytes="1000\n",
        memory__limit_in_bytes="2000\n",
        memory__stat="inactive_file 1\ntotal_inactive_file 300\n",
    )
    assert memory_guard.read(tmp_path) == ContainerMemory(700, 2000)


@pytest.mark.parametrize("limit", ["max\n", "9223372036854771712\n"])
def test_container_memory_without_a_limit_has_fraction_zero(tmp_path: Path, limit: str):
    write(tmp_path, memory__current="1000\n", memory__max=limit, memory__stat="")
    reading = memory_guard.read(tmp_path)
    assert reading == ContainerMemory(1000, None)
    assert reading.fraction == 0.0


def test_container_memory_without_a_cgroup_is_none(tmp_path: Path):
    assert memory_guard.read(tmp_path) is None
