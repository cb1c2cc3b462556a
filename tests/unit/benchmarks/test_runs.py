from __future__ import annotations

import io
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.figures import Figure, write
from benchmarks.runs.registry import scenarios
from benchmarks.runs.run_folder import DONE, FAILED, INTERRUPTED, OUT_OF_TIME, RunFolder
from benchmarks.runs.runner import FULL, QUICK, QUICK_RUN_S, Order, is_whole, perform
from benchmarks.runs.scenario_process import run_scenario
from benchmarks.runs.terminate import END_S
from benchmarks.scenario import Log, Scenario, Subjects

ROWS, SUBJECTS = ("speed/1", "speed/4"), ("vestal", "peer")


def measure(log: Log, subjects: Subjects, rounds: int) -> None:
    for number in range(1, rounds + 1):
        for row in ROWS:
            for subject in SUBJECTS:
                log(Figure(row, subject, 1.0, "tok/s", round=number))


SPEED = Scenario("speed", "how fast", quick_s=10, full_s=100, run=measure, quick_rounds=1, full_rounds=3)


class StartedProcess:
    """The process of a scenario that runs `scenario` at once, and that ends with `code`."""

    stdin: io.BytesIO | None = None
    pid = 0

    def __init__(self, code: int) -> None:
        self._code = code

    def wait(self, timeout: float | None = None) -> int:
        return self._code


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "full-1")
    run.write_machine({"cores": 2})
    return run


def starting(run: RunFolder, scenario: Scenario, asked: list[list[str]]) -> Any:
    def start(arguments: list[str]) -> StartedProcess:
        asked.append(arguments[1:])
        rounds, first = int(arguments[2]), int(arguments[3])
        return StartedProcess(run_scenario(run, scenario, rounds, first, Subjects()))

    return start


def rounds_on_file(run: RunFolder) -> list[int]:
    return [figure.round for figure in run.figures()]


def test_benchmark_run_stores_each_round_with_its_number_and_scenario(run: RunFolder):
    asked: list[list[str]] = []
    assert perform(run, Order(FULL), [SPEED], starting(run, SPEED, asked)) == 0
    assert asked == [["speed", "3", "1"]]
    assert rounds_on_file(run) == [1] * 4 + [2] * 4 + [3] * 4
    assert {figure.scenario for figure in run.figures()} == {"speed"} and is_whole(run, [SPEED])


@pytest.mark.parametrize("stored", range(13))
def test_benchmark_run_killed_after_any_measurement_and_resumed_has_each_round_measured_once(
    run: RunFolder, stored: int
):
    """The run was killed with `kill -9` after `stored` figures, while it wrote the next line."""
    with run.figures_file.open("w") as file:
        for number in range(stored):
            row, subject = ROWS[number // 2 % 2], SUBJECTS[number % 2]
            write(file, Figure(row, subject, 2.0, "tok/s", round=number // 4 + 1, scenario="speed"))
        file.write('{"row": "speed/1", "subj')
    perform(run, Order(FULL), [SPEED], starting(run, SPEED, []))
    assert sorted(rounds_on_file(run)) == [1] * 4 + [2] * 4 + [3] * 4
    kept = sum(figure.value == 2.0 for figure in run.figures())
    assert kept == max(0, (stored - 1) // 4 * 4)


def test_resumed_benchmark_run_does_not_repeat_a_finished_scenario(run: RunFolder):
    perform(run, Order(FULL), [SPEED], starting(run, SPEED, []))
    asked: list[list[str]] = []
    perform(run, Order(FULL), [SPEED], starting(run, SPEED, asked))
    assert asked == [] and len(run.figures()) == 12


def test_interrupted_scenario_keeps_its_figures_and_resumes_at_the_interrupted_round(run: RunFolder):
    def interrupted(log: Log, subjects: Subjects, rounds: int) -> None:
        measure(log, subjects, 1)
        log(Figure(ROWS[0], "vestal", 3.0, round=2))
        raise KeyboardInterrupt

    broken = Scenario("speed", "how fast", 10, 100, interrupted, full_rounds=3)
    perform(run, Order(FULL), [broken], starting(run, broken, []))
    assert run.ends()["speed"].ended == INTERRUPTED and len(run.figures()) == 5
    asked: list[list[str]] = []
    perform(run, Order(FULL), [SPEED], starting(run, SPEED, asked))
    assert asked == [["speed", "2", "2"]] and len(run.figures()) == 12


def test_failed_scenario_is_stored_with_its_reason_and_the_next_scenario_runs(run: RunFolder):
    def fail(log: Log, subjects: Subjects, rounds: int) -> None:
        raise TimeoutError("The gateway is not healthy. Its log ends:\nno memory")

    broken = Scenario("broken", "what fails", 10, 100, fail)
    either = {"broken": broken, "speed": SPEED}

    def start(arguments: list[str]) -> Any:
        return starting(run, either[arguments[1]], [])(arguments)

    assert perform(run, Order(FULL), [broken, SPEED], start) == 1
    failure = run.figures()[0]
    assert failure.failed == "TimeoutError: The gateway is not healthy. Its log ends: no memory"
    assert run.ends()["broken"].ended == FAILED and run.ends()["speed"].ended == DONE


def test_stored_failure_of_a_scenario_is_dropped_when_the_scenario_runs_again(run: RunFolder):
    with run.figures_file.open("w") as file:
        write(file, Figure("speed", "vestal", failed="It died.", round=0, scenario="speed"))
    perform(run, Order(FULL), [SPEED], starting(run, SPEED, []))
    assert all(figure.failed is None for figure in run.figures())


def test_scenario_that_exceeds_its_time_budget_is_interrupted(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    class Endless(StartedProcess):
        def wait(self, timeout: float | None = None) -> int:
            assert timeout == SPEED.quick_s
            raise subprocess.TimeoutExpired("scenario", timeout or 0)

    interrupted: list[object] = []
    monkeypatch.setattr("benchmarks.runs.runner.interrupt", interrupted.append)
    process: Any = Endless(0)
    assert perform(run, Order(QUICK), [SPEED], lambda arguments: process) == 0
    assert interrupted == [process] and run.ends()["speed"].ended == OUT_OF_TIME


def test_interrupted_self_resuming_scenario_is_called_again_for_all_rounds_and_keeps_its_results(
    run: RunFolder,
):
    """The tries do not go round by round: one group of faults may have all rounds, and the next one none."""
    with run.figures_file.open("w") as file:
        for number in (1, 2, 3):
            write(file, Figure("faults/kill/lost", "vestal", 0.0, round=number, scenario="speed"))
        write(file, Figure("speed", "vestal", failed="It died.", round=0, scenario="speed"))
    asked: list[list[str]] = []
    perform(run, Order(FULL), [replace(SPEED, resumes_itself=True)], starting(run, SPEED, asked))
    assert asked == [["speed", "3", "1"]]
    assert sum(figure.row == "faults/kill/lost" for figure in run.figures()) == 3


def test_scenario_with_a_quick_time_budget_of_zero_is_omitted_from_a_quick_run(run: RunFolder):
    asked: list[list[str]] = []
    perform(run, Order(QUICK), [replace(SPEED, quick_s=0)], starting(run, SPEED, asked))
    assert asked == [] and run.ends() == {}


def test_quick_run_limits_each_scenario_to_the_time_left_of_the_whole_run():
    slow = Scenario("slow", "", 300, 300, measure)
    order = Order(QUICK)
    assert order.budget_s(slow, 0) == 300
    assert order.budget_s(slow, 500) == QUICK_RUN_S - END_S - 500
    assert Order(FULL).budget_s(slow, 5_000) == 300


def test_quick_time_budgets_of_all_scenarios_fit_into_the_time_of_a_quick_run():
    known = scenarios()
    assert known
    assert sum(scenario.quick_s for scenario in known.values()) <= QUICK_RUN_S - END_S
