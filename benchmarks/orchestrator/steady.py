"""Run thousands of cycles, ten per second, with tasks and failing models, and check that memory, files and
databases do not grow.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from benchmarks.orchestrator.container import Container, StandInControl

MB = 2**20
SAMPLES = 20
AWAY_EVERY = 4  # in every fourth sample the models answer 500
TASKS_A_SAMPLE = 25
KEPT = 100  # finished tasks that are not deleted; the nightly service keeps more
FLAT = 0.10
TRIM = f"""
import sys, time
sys.path.insert(0, "/app")
from pathlib import Path
from orchestrator.tasks.database import SqliteTasks
from orchestrator.tasks.retention import drop_old_tasks
print(drop_old_tasks(SqliteTasks(Path("/data/orchestrator-tasks.db")), time.time(), kept={KEPT}, kept_s=0))
"""
ROW = "{:>8} {:>8} {:>8} {:>8} {:>8} {:>10} {:>12} {:>10} {:>10}"
TITLES = ("cycles", "s", "RSS MB", "files", "threads", "db MB", "tasks db MB", "cycle rows", "tasks")


def steady(models: StandInControl, given: argparse.Namespace) -> bool:
    """Run tasks in an orchestrator until it has made `given.cycles` cycles of its main loop, with `models` in
    place of the model servers. Print a line for each of SAMPLES samples. Return whether the figures in
    FIGURES stayed flat: memory, open files, threads, and the bytes and rows of the tasks' database.
    """
    env = {"ORCHESTRATOR_CYCLE_INTERVAL": "0.1", "ORCHESTRATOR_HEALTH_MONITOR_INTERVAL": "1"}
    with Container(models, "512m", **env, RECOVERY_WEBHOOK_URL=f"{models.inside}/recover") as one:
        (one.knowledge / "docs").mkdir()
        (one.knowledge / "docs" / "birds.md").write_text("# Birds\n\nThe heron eats fish at dawn.\n")
        one.start()
        one.first_cycle()
        print(ROW.format(*TITLES))
        began, seen = time.monotonic(), list[dict[str, Any]]()
        for number in range(1, SAMPLES + 1):
            _work(models, one, number, given.cycles * number // SAMPLES)
            seen.append(one.probe())
            _show(one.ask("/health")["cycles"], time.monotonic() - began, seen[-1])
        return _flat(seen)


def _work(models: StandInControl, one: Container, number: int, cycles: int) -> None:
    """Do the work of one sample in the container `one`: run TASKS_A_SAMPLE tasks, wait until they are done
    and the orchestrator has made `cycles` cycles of its main loop since its start, and delete old tasks.

    `number` is the number of the sample. In every AWAY_EVERY-th sample, the models answer with errors until
    the orchestrator has made `cycles` cycles.
    """
    away = number % AWAY_EVERY == 0
    models.control(mode="error" if away else "ok", chat_s=0.02)
    for task in range(TASKS_A_SAMPLE):
        one.ask("/tasks", {"goal": f"goal {number}.{task}: what does the heron eat?"})
    one.ask("/knowledge/search", {"query": f"birds {number}"})
    one.until(lambda: one.ask("/health")["cycles"] >= cycles, f"{cycles} cycles", 600)
    models.control(mode="ok", chat_s=0.02)
    states = lambda: {task["state"] for task in one.ask("/tasks?limit=500")["tasks"]}  # noqa: E731
    one.until(lambda: states() == {"done"}, "the tasks are done", 300)
    one.python(TRIM)


def _show(cycles: int, seconds: float, held: dict[str, Any]) -> None:
    ours, tasks = (held["databases"][name] for name in ("orchestrator.db", "orchestrator-tasks.db"))
    figures = (
        held["rss_bytes"] / MB,
        held["files"],
        held["threads"],
        ours["bytes"] / MB,
        tasks["bytes"] / MB,
    )
    rows = (ours["rows"].get("cycles", 0), tasks["rows"].get("workflow_status", 0))
    print(ROW.format(cycles, f"{seconds:.0f}", *(f"{figure:.4g}" for figure in figures), *rows), flush=True)


def _flat(seen: list[dict[str, Any]]) -> bool:
    """Print how much each figure in FIGURES grew, and return whether each grew by at most the share FLAT. The
    median of the last four samples is compared with the median of four early ones, taken after KEPT tasks had
    finished.
    """
    kept = KEPT // TASKS_A_SAMPLE + 1
    good = True
    for name, read in FIGURES.items():
        before = statistics.median(map(read, seen[kept : kept + 4]))
        grown = statistics.median(map(read, seen[-4:])) / before - 1
        print(f"{name}: {grown:+.1%}")
        good &= grown <= FLAT
    return good


FIGURES: dict[str, Any] = {
    "RSS": lambda held: held["rss_bytes"],
    "open files": lambda held: held["files"],
    "threads": lambda held: held["threads"],
    "bytes of the tasks' database": lambda held: held["databases"]["orchestrator-tasks.db"]["bytes"],
    "rows of the tasks' database": lambda held: sum(
        held["databases"]["orchestrator-tasks.db"]["rows"].values()
    ),
}
