"""Run a task's steps in their order: plan → (retrieve → answer) for each agent in parallel → join. A task
that names its agents has no plan step.

The workflow does not know DBOS, which stores each step's result under the step's position in the task. The
workflow reserves the positions in advance, so that parallel steps have the same positions when the task is
resumed after a kill. If the order of the `reserve` calls changes, stored tasks can no longer be resumed, so
dbos_setup.APPLICATION_VERSION must change too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from orchestrator.errors import TaskFailed
from orchestrator.tasks.plan import SubTask
from orchestrator.tasks.steps import Steps

Run = Callable[
    ..., Awaitable[Any]
]  # (work, *arguments) → the step's result, from the database if it is there
Reserve = Callable[[str], Run]  # name of a step → its reserved position

SOURCE_FIELDS = ("agent", "file", "heading", "score")


async def work(task: dict[str, Any], steps: Steps, reserve: Reserve, max_parallel: int) -> dict[str, Any]:
    """Run the steps of a task, and return {"answer", "answers", "sources", "notes"}. The notes are remarks,
    such as that an agent could not answer. Raises TaskFailed if no agent could answer.

    `task` has a "goal" and "agents", a list of names; if it is empty, the plan step chooses the agents.
    `steps` has a method for each step. At most `max_parallel` agents work at the same time.

    `reserve` takes a step's name, and reserves the next number in the order of the task's steps: DBOS stores
    the step's result under this number. It returns a function that takes a method of `steps` and arguments.
    This function returns the step's stored result if there is one, and otherwise calls the method.
    """
    goal: str = task["goal"]
    parts, notes = await _parts(task, steps, reserve)
    positions = [(part, reserve(f"retrieve:{part.agent}"), reserve(f"answer:{part.agent}")) for part in parts]
    slots = asyncio.Semaphore(max_parallel)

    async def one(part: SubTask, retrieve: Run, answer: Run) -> dict[str, Any]:
        async with slots:
            return await _answered(steps, goal, part, retrieve, answer)

    ended = await asyncio.gather(*(one(*position) for position in positions), return_exceptions=True)
    answers = [_result_of(part, end) for part, end in zip(parts, ended, strict=True)]
    good = {a["agent"]: a["answer"] for a in answers if not a["error"]}
    if not good:
        raise TaskFailed(_why(answers))
    single = next(iter(good.values())) if len(good) == 1 else None
    return {
        "answer": single or await reserve("join")(steps.join, goal, good),
        "answers": answers,
        "sources": _each_once(source for a in answers for source in a["sources"]),
        "notes": _each_once([*notes, *(note for a in answers for note in a.pop("notes"))]),
    }


async def _parts(task: dict[str, Any], steps: Steps, reserve: Reserve) -> tuple[list[SubTask], list[str]]:
    goal, crew = task["goal"], steps.crew()
    if task["agents"]:
        return [SubTask(name) for name in task["agents"]], []
    planned = await reserve("plan")(steps.plan, goal)
    return [SubTask(**part) for part in planned["parts"]] or [SubTask(crew[0])], [
        *filter(None, [planned["note"]])
    ]


async def _answered(steps: Steps, goal: str, part: SubTask, retrieve: Run, answer: Run) -> dict[str, Any]:
    found = await retrieve(steps.retrieve, part.agent, part.goal or goal)
    reply = await answer(steps.answer, part.agent, goal, part.goal, found["sources"])
    if isinstance(reply, str):  # stored by an older version
        reply = {"text": reply, "sources_used": len(found["sources"])}
    sources = [
        {key: source[key] for key in SOURCE_FIELDS} for source in found["sources"][: reply["sources_used"]]
    ]
    return {"answer": reply["text"], "sources": sources, "notes": [*filter(None, [found["note"]])]}


def _result_of(part: SubTask, end: dict[str, Any] | BaseException) -> dict[str, Any]:
    """Return what the task's result says about one agent: its answer, or the reason if it failed with
    TaskFailed. `end` is what the agent's steps returned or raised; any other exception, such as cancellation,
    is raised.
    """
    result: dict[str, Any] = {
        "agent": part.agent,
        "goal": part.goal,
        "answer": None,
        "error": None,
        "sources": [],
        "notes": [],
    }
    if isinstance(end, TaskFailed):
        return {**result, "error": end.message, "notes": [f"{part.agent} could not answer: {end.message}"]}
    if isinstance(end, BaseException):
        raise end
    return {**result, **end}


def _why(answers: list[dict[str, Any]]) -> str:
    if len(answers) == 1:
        return str(answers[0]["error"])
    return "no agent could answer: " + "; ".join(f"{a['agent']}: {a['error']}" for a in answers)


def _each_once(found: Iterable[Any]) -> list[Any]:
    kept: list[Any] = []
    for one in found:
        if one not in kept:
            kept.append(one)
    return kept
