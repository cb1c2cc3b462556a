"""Measure the time between the steps of tasks whose steps do nothing.

    python -m benchmarks.orchestrator.step_times TASKS

TASKS is the number of tasks. The program prints a JSON object with three lists of times in milliseconds.
`steps` has the times from the start of a step to the start of the next one, which include storing the step's
result. `tasks` has the times from a task's submission to the start of its last step. `undurable` has the same
times as `steps`, for the same workflow without a database.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

from orchestrator.tasks import workflow
from orchestrator.tasks.database import SqliteTasks
from orchestrator.tasks.steps import Steps
from orchestrator.tasks.task_queue import TaskQueue

AGENT = "lead"
TASK_TIMEOUT_S = 30.0


class IdleSteps:
    """Stand-ins for the orchestrator's steps `plan`, `retrieve` and `answer`, which do no work. `began`
    records when each step starts, in seconds of `time.perf_counter`. The last step, `answer`, sets the event
    `answered`.
    """

    def __init__(self) -> None:
        self.began: list[float] = []
        self.answered = asyncio.Event()

    def crew(self) -> tuple[str, ...]:
        return (AGENT,)

    async def plan(self, goal: str, say: Any) -> dict[str, Any]:
        self.began.append(time.perf_counter())
        return {"parts": [{"agent": AGENT, "goal": goal}], "note": ""}

    async def retrieve(self, name: str, goal: str, say: Any) -> dict[str, Any]:
        self.began.append(time.perf_counter())
        return {"sources": [], "note": ""}

    async def answer(self, *arguments: Any) -> dict[str, Any]:
        self.began.append(time.perf_counter())
        self.answered.set()
        return {"text": "An answer.", "sources_used": 0}

    def take(self) -> list[float]:
        """Return the start times of all steps since the last call of this method, in seconds of
        `time.perf_counter`, and clear the event `answered`.
        """
        taken, self.began = self.began, []
        self.answered.clear()
        return taken


async def measure(tasks: int, file: Path) -> dict[str, list[float]]:
    """Run `tasks` tasks one after the other, each with the SQLite database `file` and again without a
    database. Return lists of times in milliseconds.

    With the database, `steps` are the times between the starts of successive steps, and `tasks` those from a
    task's submission to the start of its last step. `undurable` are the times between steps without a
    database. Raises TimeoutError if a task does not reach its last step within TASK_TIMEOUT_S seconds.
    """
    idle = IdleSteps()
    steps = cast(Steps, idle)
    found: dict[str, list[float]] = {"steps": [], "tasks": [], "undurable": []}
    queue = TaskQueue(SqliteTasks(file), steps, max_calls=2)
    await queue.start()
    for number in range(tasks + 1):
        submitted = time.perf_counter()
        await queue.submit(f"goal {number}", [], None)
        await asyncio.wait_for(idle.answered.wait(), TASK_TIMEOUT_S)
        began = idle.take()
        if number:  # the first task is slower, because it also loads modules
            found["steps"] += gaps_ms(began)
            found["tasks"].append((began[-1] - submitted) * 1000)
        await workflow.work({"goal": f"goal {number}", "agents": []}, steps, _directly, 2)
        found["undurable"] += gaps_ms(idle.take())
    while await queue.waiting():  # noqa: ASYNC110  # DBOS has no event for it
        await asyncio.sleep(0.02)  # the last answer is being stored
    return found


def gaps_ms(times: list[float]) -> list[float]:
    """Return the gaps in milliseconds between successive times, which are in seconds."""
    return [(later - earlier) * 1000 for earlier, later in zip(times, times[1:], strict=False)]


def _directly(name: str) -> workflow.Run:
    async def run(work: Any, *arguments: Any) -> Any:
        return await work(*arguments, lambda detail: None)

    return run


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="vestal-bench-") as folder:
        print(json.dumps(asyncio.run(measure(int(sys.argv[1]), Path(folder) / "tasks.db"))), flush=True)


if __name__ == "__main__":
    main()
