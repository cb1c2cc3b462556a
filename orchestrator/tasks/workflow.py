"""A task's steps in their order: plan → (find knowledge → answer) for each agent, side by side → join.

It knows nothing of DBOS. What it is given reserves the places of steps ahead, so that those which run side by
side keep them through any kill: the order of `reserve` is part of what is stored (tasks.APPLICATION_VERSION).
A task that names its agents has no plan step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from orchestrator.errors import TaskFailed
from orchestrator.tasks.plan import SubTask
from orchestrator.tasks.steps import Steps

Run = Callable[..., Awaitable[Any]]  # (work, *arguments): the step's result, from the record where it has one
Reserve = Callable[[str], Run]  # the next place, for a step of this name

SOURCE_FIELDS = ("agent", "file", "heading", "score")


async def work(task: dict[str, Any], steps: Steps, reserve: Reserve, most_at_once: int) -> dict[str, Any]:
    """{"answer", "answers", "sources", "notes"}; TaskFailed where no agent could answer."""
    goal: str = task["goal"]
    parts, notes = await _parts(task, steps, reserve)
    places = [(part, reserve(f"retrieve:{part.agent}"), reserve(f"answer:{part.agent}")) for part in parts]
    free = asyncio.Semaphore(most_at_once)

    async def one(part: SubTask, retrieve: Run, answer: Run) -> dict[str, Any]:
        async with free:
            return await _answered(steps, goal, part, retrieve, answer)

    ended = await asyncio.gather(*(one(*place) for place in places), return_exceptions=True)
    answers = [_told(part, end) for part, end in zip(parts, ended, strict=True)]
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
    said = await answer(steps.answer, part.agent, goal, part.goal, found["sources"])
    if isinstance(said, str):  # recorded by an older version
        said = {"text": said, "sources_used": len(found["sources"])}
    sources = [
        {key: source[key] for key in SOURCE_FIELDS} for source in found["sources"][: said["sources_used"]]
    ]
    return {"answer": said["text"], "sources": sources, "notes": [*filter(None, [found["note"]])]}


def _told(part: SubTask, end: dict[str, Any] | BaseException) -> dict[str, Any]:
    """One agent's answer, or why it has none; what is no failure of a step (a cancellation) goes on up."""
    told: dict[str, Any] = {
        "agent": part.agent,
        "goal": part.goal,
        "answer": None,
        "error": None,
        "sources": [],
        "notes": [],
    }
    if isinstance(end, TaskFailed):
        return {**told, "error": end.message, "notes": [f"{part.agent} could not answer: {end.message}"]}
    if isinstance(end, BaseException):
        raise end
    return {**told, **end}


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
