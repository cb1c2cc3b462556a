"""Run scenarios one after the other, each within its budget of seconds, and store their figures."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.runs.run_folder import DONE, FAILED, INTERRUPTED, OUT_OF_TIME, Ended, RunFolder
from benchmarks.runs.scenario_process import INTERRUPTED_CODE
from benchmarks.runs.terminate import END_S, interrupt
from benchmarks.scenario import Scenario, progress

QUICK, FULL = "quick", "full"
QUICK_RUN_S = 600.0
"""The most seconds that a quick run takes, including the interruption of its last scenario."""


@dataclass(frozen=True)
class Order:
    """What is to be run: the mode, the scenarios and subjects to include (empty: all), and the number of
    rounds (None: the scenario's own).
    """

    mode: str
    scenarios: Sequence[str] = ()
    subjects: Sequence[str] = ()
    rounds: int | None = None

    def rounds_of(self, scenario: Scenario) -> int:
        """Return how many rounds of a scenario are to be run."""
        return self.rounds or (scenario.quick_rounds if self.mode == QUICK else scenario.full_rounds)

    def budget_s(self, scenario: Scenario, since_begin_s: float) -> float:
        """Return how many seconds a scenario may take. In a full run, this is its `full_s`. In a quick run,
        it is the lesser of its `quick_s` and the time that is left: QUICK_RUN_S for the whole run, less the
        `since_begin_s` seconds since the run began, less END_S for interrupting the scenario. The time that
        is left may be 0 or negative.
        """
        if self.mode == FULL:
            return scenario.full_s
        return min(scenario.quick_s, QUICK_RUN_S - END_S - since_begin_s)


def is_whole(run: RunFolder, scenarios: Sequence[Scenario]) -> bool:
    """Return whether all these scenarios are done in the run, so that nothing is left to resume."""
    ends = run.ends()
    return all(one.name in ends and ends[one.name].ended == DONE for one in scenarios)


def perform(
    run: RunFolder,
    order: Order,
    scenarios: Sequence[Scenario],
    start: Callable[[list[str]], subprocess.Popen[bytes]] | None = None,
) -> int:
    """Run what the order asks for and the run does not have yet. Return 0, or 1 if a scenario failed.

    `start` starts the process of a scenario. After a KeyboardInterrupt, the running scenario is stopped, its
    figures stay stored, and the exception is raised again.
    """
    began, failed = time.monotonic(), False
    for scenario in scenarios:
        if order.scenarios and scenario.name not in order.scenarios:
            continue
        if order.mode == QUICK and not scenario.quick_s:
            progress(f"{scenario.name}: it is no part of a quick run.")
            continue
        if is_whole(run, [scenario]):
            progress(f"{scenario.name}: done before.")
            continue
        have, rounds = (
            run.begin(scenario.name, resumes_itself=scenario.resumes_itself),
            order.rounds_of(scenario),
        )
        budget_s = order.budget_s(scenario, time.monotonic() - began)
        if have < rounds and budget_s <= 0:
            progress(f"{scenario.name}: no time is left for it.")
            run.add_end(Ended(scenario.name, OUT_OF_TIME, 0))
            continue
        end = Ended(scenario.name, DONE, 0)
        if have < rounds:
            arguments = [str(run.path), scenario.name, str(rounds - have), str(have + 1), *order.subjects]
            end = _one(run, scenario.name, (start or start_scenario)(arguments), budget_s)
        run.add_end(end)
        progress(f"{scenario.name}: {end.ended} after {end.seconds:.0f} s.")
        failed |= end.ended == FAILED
    return int(failed)


def start_scenario(arguments: list[str]) -> subprocess.Popen[bytes]:
    """Start the process of a scenario and return it. It gets a new session, so that the terminal's Ctrl-C
    reaches only the runner, which passes the interruption on.

    `arguments` are those of `benchmarks.runs.scenario_process`: the run's folder, the scenario's name, the
    number of rounds, the number of the first round, and the subjects to measure (none: all).
    """
    command = [sys.executable, "-m", "benchmarks.runs.scenario_process", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def _one(run: RunFolder, name: str, process: subprocess.Popen[bytes], budget_s: float) -> Ended:
    began = time.monotonic()
    try:
        code = process.wait(budget_s)
    except subprocess.TimeoutExpired:
        progress(f"{name}: its {budget_s:.0f} s are spent; it is stopped.")
        interrupt(process)
        return Ended(name, OUT_OF_TIME, time.monotonic() - began)
    except KeyboardInterrupt:
        interrupt(process)
        run.add_end(Ended(name, INTERRUPTED, time.monotonic() - began))
        raise
    finally:
        if process.stdin:
            process.stdin.close()
    ended = {0: DONE, INTERRUPTED_CODE: INTERRUPTED}.get(code, FAILED)
    return Ended(name, ended, time.monotonic() - began)
