"""Whether a silent model is busy or hung: what its runner shows decides, and the verdict names it."""

from __future__ import annotations

import pytest

from host_agent.services.http_probe import Reply
from host_agent.services.ollama.runner_readings import (
    SHOWS_NOTHING,
    STEP_RUNS,
    Reading,
    RunnerActivity,
    RunnerReading,
    read_log,
    read_slots,
)
from host_agent.services.ollama.silence import ProgressWatch, RunnerJudgement, is_used, judge

RUNNER = 7
LOADS = Reading(RunnerActivity.LOADING, None, "it loads its model")
IDLE = Reading(RunnerActivity.IDLE, (), "its slots are idle")


def works(tokens: int) -> Reading:
    return Reading(RunnerActivity.WORKING, tokens, f"{tokens} tokens")


def judged(*looks: tuple[float, float, Reading], no_progress_s: float = 300.0) -> RunnerJudgement:
    """Return the judgement after looks at one runner: (seconds since the probe, cores, reading)."""
    watch, last = ProgressWatch(), tuple[RunnerReading, ...]()
    for at, cores, reading in looks:
        last = (RunnerReading(RUNNER, cores, reading),)
        watch = watch.after(last, at)
    return judge(last, watch, silent_s=looks[-1][0], now=looks[-1][0], no_progress_s=no_progress_s)


def test_ollama_runner_whose_tokens_advance_is_busy_without_a_time_limit():
    found = judged((10, 0.0, works(512)), (20_000, 0.0, works(1024)))
    assert (found.hangs, found.basis) == (False, "progress")
    assert found.detail == (
        "busy: a token asked for waits since 20000 s; its runner (PID 7) uses 0.0 cores and makes progress"
        " (1024 tokens)"
    )


@pytest.mark.parametrize(
    ("cores", "standing_s", "hangs"),
    [(1.9, 299, False), (1.9, 300, True), (0.0, 59, False), (0.0, 60, True)],
)
def test_ollama_runner_without_progress_counts_as_hung_sooner_if_it_uses_no_cpu(
    cores: float, standing_s: float, hangs: bool
):
    found = judged((10, cores, works(512)), (10 + standing_s, cores, works(512)))
    assert found.hangs == hangs
    if hangs:
        assert f"has made no progress for {standing_s:.0f} s (512 tokens)" in found.detail


def test_ollama_runner_in_one_computation_step_longer_than_the_limit_counts_as_hung():
    """During a step, /slots does not answer, so the last known progress counts."""
    assert judged((10, 1.0, works(512)), (310, 1.0, STEP_RUNS)).hangs
    assert judged((10, 1.0, STEP_RUNS), (310, 1.0, STEP_RUNS)).hangs
    assert not judged((10, 1.0, STEP_RUNS), (300, 1.0, works(512)), (400, 1.0, STEP_RUNS)).hangs


@pytest.mark.parametrize(
    ("silent_s", "cores", "reading", "hangs"),
    [
        (15, 0.0, SHOWS_NOTHING, True),
        (15, 0.5, SHOWS_NOTHING, False),
        (899, 0.02, SHOWS_NOTHING, False),  # a GPU's runner needs little of the CPU
        (900, 1.0, SHOWS_NOTHING, True),  # ollama/ollama 10516: 100 % of the CPU, and never a token
        (15, 0.0, IDLE, True),
        (15, 0.1, IDLE, True),  # our own questions cost it as much
        (15, 0.5, IDLE, False),
        (15, 0.0, LOADS, False),
        (900, 0.0, LOADS, True),
    ],
)
def test_silent_ollama_runner_without_progress_figures_counts_as_hung_only_after_900_s_if_it_uses_the_cpu(
    silent_s: float, cores: float, reading: Reading, hangs: bool
):
    found = judged((silent_s, cores, reading))
    assert found.hangs == hangs
    assert reading.evidence in found.detail


def test_silent_ollama_model_without_a_runner_process_counts_as_hung():
    found = judge((), ProgressWatch(), silent_s=12, now=12)
    assert (found.hangs, found.detail) == (True, "no token within 12 s; it has no runner")


def test_ollama_runner_without_progress_counts_as_hung_even_if_another_runner_advances():
    first = (RunnerReading(1, 1.0, works(512)), RunnerReading(2, 1.0, works(10)))
    then = (RunnerReading(1, 1.0, works(512)), RunnerReading(2, 1.0, works(99)))
    watch = ProgressWatch().after(first, 0).after(then, 400)
    found = judge(then, watch, silent_s=400, now=400)
    assert found.hangs
    assert "PID 1" in found.detail


def test_time_limit_for_progress_begins_anew_for_an_ollama_runner_that_replaces_another():
    watch = ProgressWatch().after((RunnerReading(1, 1.0, works(512)),), 0)
    then = (RunnerReading(2, 1.0, works(512)),)
    assert not judge(then, watch.after(then, 400), silent_s=400, now=400).hangs


@pytest.mark.parametrize(
    ("cores", "reading", "connected", "since_answer_s", "used"),
    [
        (0.0, works(512), False, 30, True),
        (0.0, STEP_RUNS, False, 30, True),
        (0.0, LOADS, False, 30, True),
        (0.5, SHOWS_NOTHING, False, 30, True),
        (0.1, IDLE, False, 3000, False),  # our own questions cost it as much
        (0.0, SHOWS_NOTHING, False, 3000, False),
        (0.0, IDLE, True, 30, True),  # Ollama closes its connection to a llama-server with each request
        (0.0, SHOWS_NOTHING, True, 90, False),  # the connection may be our last probe's
        (0.0, SHOWS_NOTHING, True, 95, True),
    ],
)
def test_ollama_runner_is_in_use_if_it_works_or_its_server_is_connected_to_it_long_after_the_last_probe(
    cores: float, reading: Reading, connected: bool, since_answer_s: float, used: bool
):
    assert is_used((RunnerReading(RUNNER, cores, reading, connected),), since_answer_s) == used
    assert not is_used((), since_answer_s)


# --- what a runner shows ----------------------------------------------------------------------------------


def slot(**changed: object) -> dict[str, object]:
    """Return a slot as llama-server of Ollama 0.32 has it."""
    return {
        "id": 0,
        "n_ctx": 4096,
        "is_processing": True,
        "id_task": 4,
        "n_prompt_tokens": 1536,
        "n_prompt_tokens_processed": 1024,
        "n_prompt_tokens_cache": 512,
        "next_token": [{"has_next_token": True, "n_remain": -1, "n_decoded": 3}],
        **changed,
    }


def test_ollama_runner_slots_show_the_tokens_read_and_written():
    found = read_slots(Reply(200, [slot(), slot(id=1, is_processing=False)]))
    assert found.activity is RunnerActivity.WORKING
    assert found.evidence == "its /slots: slot 0 has read 1536 and written 3 tokens"


@pytest.mark.parametrize(
    "advanced",
    [
        {"n_prompt_tokens": 2048},
        {"n_prompt_tokens_processed": 1536},
        {"next_token": [{"n_decoded": 4}]},
        {"next_token": {"n_decoded": 4}},
        {"id_task": 5},
        {"n_past": 9},
    ],
)
def test_progress_mark_from_ollama_runner_slots_changes_when_any_progress_counter_changes(
    advanced: dict[str, object],
):
    assert read_slots(Reply(200, [slot()])).mark == read_slots(Reply(200, [slot(n_ctx=1)])).mark
    assert read_slots(Reply(200, [slot()])).mark != read_slots(Reply(200, [slot(**advanced)])).mark


@pytest.mark.parametrize(
    ("reply", "activity"),
    [
        (Reply(200, [slot(is_processing=False)]), RunnerActivity.IDLE),
        (Reply(200, []), RunnerActivity.IDLE),
        (Reply(200, [{"is_processing": True}]), RunnerActivity.WORKING),
        (Reply(503, {"error": {"message": "Loading model"}}), RunnerActivity.LOADING),
        (Reply(404, None), RunnerActivity.HIDDEN),
        (Reply(501, {"error": {"message": "does not support slots endpoint"}}), RunnerActivity.HIDDEN),
        (Reply(200, {"slots": 1}), RunnerActivity.HIDDEN),
        (Reply(200, ["x"]), RunnerActivity.IDLE),
    ],
)
def test_answer_of_the_runners_slots_route_shows_it_as_working_or_idle_or_loading_and_else_as_unknown(
    reply: Reply, activity: RunnerActivity
):
    assert read_slots(reply).activity is activity


GIN_GET = '[GIN] 2026/08/21 - 10:00:01 | 200 |  1.2ms |  127.0.0.1 | GET      "/api/ps"'
GIN_POST = '[GIN] 2026/08/21 - 10:00:02 | 499 |  9.2s |  127.0.0.1 | POST     "/api/chat"'
OLDER = "slot update_slots: id  0 | task 0 | prompt processing progress, n_tokens = 512, batch.n_tokens = 512, progress = 0.173677"  # noqa: E501
NEWER = "slot print_timing: id  0 | task 0 | prompt processing, n_tokens =   2560, progress = 0.32, t =  10.00 s / 256.08 tokens per second"  # noqa: E501
MLX = 'time=2026-08-21T10:00:00 level=INFO source=pipeline.go:204 msg="Prompt processing progress" processed=2048 total=16384'  # noqa: E501
MLX_LAST = MLX.replace("processed=2048", "processed=16383")
WRITES = "slot print_timing: id  0 | task 0 | n_gen =    240, tg =  24.10 t/s, tg_3s =  24.02 t/s"


@pytest.mark.parametrize(
    ("lines", "activity", "evidence"),
    [
        ([OLDER], RunnerActivity.WORKING, "its log: 512 tokens of a prompt are read, 17% of it"),
        ([OLDER, NEWER], RunnerActivity.WORKING, "its log: 2560 tokens of a prompt are read, 32% of it"),
        ([MLX, GIN_GET, ""], RunnerActivity.WORKING, "its log: 2048 of 16384 tokens of a prompt are read"),
        (
            [MLX, GIN_POST],
            RunnerActivity.HIDDEN,
            "its log: 2048 of 16384 tokens of a prompt are read",
        ),  # cancelled
        (
            [MLX_LAST],
            RunnerActivity.HIDDEN,
            "its log: 16383 of 16384 tokens of a prompt are read",
        ),  # now it writes
        ([NEWER, WRITES], RunnerActivity.HIDDEN, "its log: 240 tokens are written"),
        ([WRITES.replace("n_gen", "n_decoded")], RunnerActivity.HIDDEN, "its log: 240 tokens are written"),
        ([GIN_POST], RunnerActivity.HIDDEN, SHOWS_NOTHING.evidence),
        ([], RunnerActivity.HIDDEN, SHOWS_NOTHING.evidence),
    ],
)
def test_ollama_log_proves_that_the_runner_is_busy_only_while_the_latest_prompt_is_partly_processed(
    lines: list[str], activity: RunnerActivity, evidence: str
):
    found = read_log(enumerate(lines))
    assert (found.activity, found.evidence) == (activity, evidence)


def test_progress_mark_from_ollamas_log_differs_for_equal_lines_at_different_offsets():
    assert read_log([(0, OLDER)]).mark == read_log([(0, OLDER), (50, GIN_GET)]).mark
    assert read_log([(0, OLDER)]).mark != read_log([(0, OLDER), (90, OLDER)]).mark
