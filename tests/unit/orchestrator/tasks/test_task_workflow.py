"""The order of a task's steps, with a record in place of DBOS: a recorded step never runs again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestrator.errors import TaskFailed
from orchestrator.tasks import workflow as task_workflow

SOURCE = {"agent": "docs", "file": "a.md", "heading": "A", "score": 0.5, "text": "long"}


class Work:
    """Steps that record their calls. `plan_of` is the lead's plan; agents in `failing` cannot answer."""

    def __init__(self, *crew: str) -> None:
        self._crew = crew
        self.plan_of: list[dict[str, str]] = []
        self.failing: set[str] = set()
        self.calls: list[str] = []
        self.at_work = self.most_at_work = 0

    def crew(self) -> tuple[str, ...]:
        return self._crew

    async def plan(self, goal: str) -> dict[str, Any]:
        self.calls.append("plan")
        return {"parts": self.plan_of, "note": ""}

    async def retrieve(self, name: str, goal: str) -> dict[str, Any]:
        self.calls.append(f"retrieve:{name}:{goal}")
        return {"sources": [SOURCE, {**SOURCE, "file": "b.md"}], "note": "slow"}

    async def answer(self, name: str, goal: str, part: str, sources: list[Any]) -> dict[str, Any]:
        self.calls.append(f"answer:{name}:{part}")
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        for _ in range(20):
            await asyncio.sleep(0)
        self.at_work -= 1
        if name in self.failing:
            raise TaskFailed(f"{name} cannot")
        return {"text": f"{name} says", "sources_used": 1}

    async def join(self, goal: str, answers: dict[str, str]) -> str:
        self.calls.append(f"join:{','.join(answers)}")
        return "all say"


class Record:
    """A durable record: the reserved steps in their order, and the results of the finished ones."""

    def __init__(self) -> None:
        self.places: list[str] = []
        self.results: dict[int, Any] = {}

    def reserve(self, name: str) -> task_workflow.Run:
        place = len(self.places)
        self.places.append(name)

        async def run(work: Any, *arguments: Any) -> Any:
            if place not in self.results:
                self.results[place] = await work(*arguments)
            return self.results[place]

        return run


def work(task: dict[str, Any], steps: Work, record: Record, most: int = 9) -> dict[str, Any]:
    return asyncio.run(task_workflow.work(task, steps, record.reserve, most))  # type: ignore[arg-type]


def test_task_with_named_agents_runs_its_steps_in_the_recorded_order_of_earlier_versions():
    record = Record()
    result = work({"goal": "g", "agents": ["a", "b"]}, Work("a", "b"), record)
    assert record.places == ["retrieve:a", "answer:a", "retrieve:b", "answer:b", "join"]
    assert result["answer"] == "all say"
    assert result["notes"] == ["slow"]


def test_task_resumed_with_answers_recorded_as_plain_text_uses_the_recorded_answers():
    record = Record()
    record.results = {0: {"sources": [SOURCE], "note": ""}, 1: "old text"}
    steps = Work("a")
    result = work({"goal": "g", "agents": ["a"]}, steps, record)
    assert (result["answer"], len(result["sources"]), steps.calls) == ("old text", 1, [])


def test_task_with_a_plan_gives_each_planned_agent_its_subtask_and_sources():
    steps, record = Work("a", "b", "c"), Record()
    steps.plan_of = [{"agent": "c", "goal": "half"}, {"agent": "a", "goal": ""}]
    result = work({"goal": "whole", "agents": []}, steps, record)
    assert record.places == ["plan", "retrieve:c", "answer:c", "retrieve:a", "answer:a", "join"]
    assert {"retrieve:c:half", "retrieve:a:whole", "answer:c:half", "answer:a:"} <= set(steps.calls)
    assert [(a["agent"], a["goal"], [s["file"] for s in a["sources"]]) for a in result["answers"]] == [
        ("c", "half", ["a.md"]),
        ("a", "", ["a.md"]),
    ]
    assert result["sources"] == [
        {key: SOURCE[key] for key in task_workflow.SOURCE_FIELDS}
    ]  # each source once


def test_task_replayed_from_a_complete_record_returns_the_same_result_and_runs_no_step():
    task, record = {"goal": "g", "agents": []}, Record()
    first = Work("a", "b")
    first.plan_of = [{"agent": "a", "goal": ""}, {"agent": "b", "goal": ""}]
    result = work(task, first, record)
    again = Record()
    again.results = record.results
    second = Work("b")  # the agents have changed in the meantime
    assert work(task, second, again) == result
    assert (again.places, second.calls) == (record.places, [])


@pytest.mark.parametrize("most", [1, 2])
def test_task_runs_at_most_the_allowed_number_of_agents_at_once(most: int):
    steps = Work("a", "b", "c")
    work({"goal": "g", "agents": ["a", "b", "c"]}, steps, Record(), most)
    assert steps.most_at_work == most


def test_task_with_a_failed_agent_answers_without_it_and_names_it():
    steps = Work("a", "b")
    steps.failing = {"a"}
    result = work({"goal": "g", "agents": ["a", "b"]}, steps, Record())
    assert result["answer"] == "b says"  # a single answer needs no joining
    assert result["answers"][0]["error"] == "a cannot"
    assert "a could not answer: a cannot" in result["notes"]


def test_task_whose_agents_all_failed_fails_with_each_reason():
    steps = Work("a", "b")
    steps.failing = {"a", "b"}
    with pytest.raises(TaskFailed, match="a: a cannot; b: b cannot"):
        work({"goal": "g", "agents": ["a", "b"]}, steps, Record())


def test_task_passes_on_an_exception_that_is_not_a_step_failure():
    class Cancelled(BaseException):
        pass

    class Broken(Work):
        async def answer(self, name: str, goal: str, part: str, sources: list[Any]) -> dict[str, Any]:
            raise Cancelled

    with pytest.raises(Cancelled):
        work({"goal": "g", "agents": ["a", "b"]}, Broken("a", "b"), Record())
