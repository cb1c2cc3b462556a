"""What the measurement of durable steps logs, and that its idle steps are those of a real task."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from benchmarks.figures import Figure
from benchmarks.orchestrator import durable
from benchmarks.orchestrator.step_times import IdleSteps, _directly, gaps_ms
from benchmarks.peers.process import PeerFailed
from orchestrator.tasks import workflow
from orchestrator.tasks.steps import Steps


def test_benchmark_task_whose_steps_do_nothing_still_runs_plan_and_retrieve_and_answer():
    idle = IdleSteps()
    done = asyncio.run(workflow.work({"goal": "g", "agents": []}, cast(Steps, idle), _directly, 2))
    assert done["answer"] == "An answer."
    assert len(idle.take()) == 3
    assert idle.take() == []


def test_step_gaps_are_the_milliseconds_between_consecutive_times():
    assert gaps_ms([1.0, 1.5, 1.75]) == [500.0, 250.0]
    assert gaps_ms([1.0]) == []


def test_measured_orchestrator_that_dies_is_logged_as_failed_with_its_message():
    def dies() -> float:
        raise PeerFailed("orchestrator run ended before it answered.")

    figures: list[Figure] = []
    durable._timed(figures.append, durable.RESUMED, 2, dies)
    assert [(each.row, each.round, each.failed) for each in figures] == [
        (durable.RESUMED, 2, "orchestrator run ended before it answered.")
    ]


def test_orchestration_benchmark_that_fails_is_logged_as_a_failure_in_each_of_its_rows(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(durable, "TASKS", "none")
    figures: list[Figure] = []
    durable._cost(figures.append, 1)
    assert [each.row for each in figures] == [f"orchestration/{row}" for row in durable.COST]
    assert all("invalid literal for int()" in str(each.failed) for each in figures)
