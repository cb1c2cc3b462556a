"""A benchmark run that is killed leaves no process behind, and the next run resumes where it stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.runs.run_folder import DONE, INTERRUPTED, RunFolder
from tests.processes import has_ended
from tests.waiting import looks

# A shell has what it runs in the background ignore SIGINT, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

REPO = Path(__file__).resolve().parents[3]
PROGRAM = """
import subprocess, sys, time
from pathlib import Path
from benchmarks.figures import Figure
from benchmarks.runs import scenario_process
from benchmarks.runs.run_folder import RunFolder
from benchmarks.runs.runner import FULL, Order, perform
from benchmarks.scenario import Scenario

def measure(log, subjects, rounds):
    server = subprocess.Popen(["sleep", "600"])
    (Path(sys.argv[2]) / "server.pid").write_text(str(server.pid))
    try:
        for number in range(1, rounds + 1):
            log(Figure("speed", "vestal", 1.0, "tok/s", round=number))
            time.sleep(0.05 if (Path(sys.argv[2]) / "fast").exists() or number == 1 else 60)
            log(Figure("speed", "peer", 1.0, "tok/s", round=number))
    finally:
        server.kill()

SLOW = Scenario("slow", "a slow one", 60, 60, measure, full_rounds=3)

def start(arguments):
    command = [sys.executable, __file__, "scenario", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

if sys.argv[1] == "run":
    sys.exit(perform(RunFolder(Path(sys.argv[2])), Order(FULL), [SLOW], start))
sys.exit(scenario_process.main(sys.argv[2:], lambda: {"slow": SLOW}))
"""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "full-1")
    run.write_machine({})
    (tmp_path / "program.py").write_text(PROGRAM)
    return run


def begin(run: RunFolder) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(run.path.parent / "program.py"), "run", str(run.path)]
    env = os.environ | {"PYTHONPATH": str(REPO)}
    return subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)


def stopped_in_round_2(run: RunFolder, number: int) -> None:
    """Send a signal to the runner within the second round, and wait until all processes have ended."""
    runner = begin(run)
    assert any(len(run.figures()) == 3 for _ in looks(50))
    processes = [psutil.Process(runner.pid), *psutil.Process(runner.pid).children(recursive=True)]
    assert len(processes) == 3
    runner.send_signal(number)
    runner.wait(60)
    assert any(all(has_ended(process.pid) for process in processes) for _ in looks(30))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_benchmark_run_killed_or_interrupted_leaves_no_process_and_resumes_in_the_same_round(
    run: RunFolder, number: int
):
    stopped_in_round_2(run, number)
    assert number == signal.SIGKILL or run.ends()["slow"].ended == INTERRUPTED
    (run.path / "fast").touch()
    assert begin(run).wait(50) == 0, "each round takes 0.1 s, and not 60 s"
    assert [(figure.round, figure.subject) for figure in run.figures()] == [
        (each, subject) for each in (1, 2, 3) for subject in ("vestal", "peer")
    ]
    assert run.ends()["slow"].ended == DONE
