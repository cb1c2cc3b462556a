"""The steps of a task: their prompts, and what they make of a model's answers."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from orchestrator.agents.agents import LEAD, Agent
from orchestrator.errors import BackendError, DatabaseFailed, EngineCrashed, RequestRejected, TaskFailed
from orchestrator.tasks import budget
from orchestrator.tasks.step_gate import StepGate
from orchestrator.tasks.steps import Notes, Steps
from tests.unit.orchestrator.conftest import Knowledge

CREW = {name: Agent(name, f"the {name}", "Work.", "m", (name,)) for name in (LEAD, "reader", "critic")}


class Client:
    """A model that accepts prompts of up to `most` estimated tokens and answers `said`."""

    def __init__(self, said: str = "yes", context: int | None = 2048, most: float = 1e9) -> None:
        self._said, self._context, self._most = said, context, most
        self.asked: list[tuple[list[dict[str, str]], int, int]] = []

    async def context_tokens(self, model: str) -> int | None:
        return self._context

    async def chat(self, model: str, messages: list[dict[str, str]], max_tokens: int, context: int) -> str:
        self.asked.append((messages, max_tokens, context))
        if size(messages) > self._most:
            raise RequestRejected("mlx answers 400: the prompt is longer than the context")
        return self._said


def size(messages: list[dict[str, str]]) -> float:
    return sum(budget.tokens(m["content"]) for m in messages)


def steps(client: Client, crew: dict[str, Agent] = CREW, notes: Notes = dict) -> Steps:
    unused: Any = None
    model: Any = client
    return Steps(crew, model, unused, unused, "e", 256, 4096, notes)


def say(detail: str) -> None:
    pass


async def test_plan_step_returns_the_subtasks_that_the_lead_agent_names():
    planned = await steps(Client("critic: doubt it\nlead: sum up")).plan("why?", say)
    assert [part["agent"] for part in planned["parts"]] == ["critic", "lead"]
    assert planned["note"] == ""


async def test_plan_and_answer_prompts_contain_the_notes_of_each_agents_own_files():
    crew = CREW | {
        LEAD: Agent(LEAD, "the lead", "Work.", "m", ("*",)),
        "thinker": Agent("thinker", "the thinker", "Think.", "m", ("reader",), tools=()),
    }
    notes = {"reader": {"text": "herons"}, "docs": {"text": "boilers"}}
    client = Client("reader: look")
    work = steps(client, crew, lambda: notes)
    await work.plan("why?", say)
    for name in ("reader", "critic", "thinker", LEAD):
        await work.answer(name, "why?", "", [], say)
    planned, *answered = [messages[1]["content"] for messages, _, _ in client.asked]
    assert planned.count("herons") == 1  # only the reader's note: the thinker may not search
    assert [("herons" in said, "boilers" in said) for said in answered] == [
        *((True, False), (False, False), (False, False), (True, True))
    ]


async def test_answer_step_with_unreadable_notes_answers_without_them():
    def broken() -> dict[str, dict[str, object]]:
        raise DatabaseFailed("disk I/O error")

    client = Client()
    assert (await steps(client, notes=broken).answer("reader", "why?", "", [], say))["text"] == "yes"


async def test_retrieve_step_with_an_unavailable_database_waits_instead_of_failing():
    """Postgres may restart, or a disk be full for a moment; that once failed the task."""

    class Away:
        asked = 0

        async def has_knowledge(self, folders: object) -> bool:
            self.asked += 1
            if self.asked == 1:
                raise DatabaseFailed("Postgres does not answer")
            return False

    search: Any = Away()
    unused: Any = None
    said: list[str] = []
    one = Steps(CREW, unused, unused, search, "e", 256, 4096)
    assert await one.retrieve("reader", "why?", said.append) == {"sources": [], "note": ""}
    assert said[0] == "waiting: Postgres does not answer"


async def test_plan_step_whose_answer_has_no_plan_asks_every_agent_except_the_lead():
    planned = await steps(Client("Hello! I am a helpful assistant.")).plan("why?", say)
    assert [(part["agent"], part["goal"]) for part in planned["parts"]] == [("reader", ""), ("critic", "")]
    assert "named no agent" in planned["note"]


def test_task_agents_are_the_lead_alone_if_no_other_agent_is_configured():
    assert steps(Client(), {LEAD: CREW[LEAD]}).crew() == (LEAD,)


@pytest.mark.parametrize(("known", "used"), [(None, 4096), (2048, 2048), (131072, 4096)])
async def test_answer_step_uses_the_models_context_up_to_the_configured_limit(known: int | None, used: int):
    client = Client(context=known)
    await steps(client).answer("reader", "goal " * 9000, "", [], say)
    messages, answer_tokens, context = client.asked[0]
    assert context == used
    assert used * 0.8 < size(messages) + answer_tokens <= used


async def test_answer_step_with_a_prompt_refused_as_too_long_asks_again_with_a_shorter_one():
    client = Client(most=700)
    answer = await steps(client).answer("reader", "goal " * 9000, "", [], say)
    assert answer == {"text": "yes", "sources_used": 0}
    sizes = [size(asked[0]) for asked in client.asked]
    assert len(sizes) == 3
    assert sizes == sorted(sizes, reverse=True)


async def test_answer_step_with_a_prompt_refused_at_every_length_fails():
    with pytest.raises(TaskFailed, match="longer than the context"):
        await steps(Client(most=0)).answer("reader", "goal", "", [], say)


async def test_answer_step_of_an_unknown_agent_fails_and_names_the_known_agents():
    with pytest.raises(TaskFailed, match="there are: lead, reader, critic"):
        await steps(Client()).answer("nobody", "goal", "", [], say)


async def test_task_step_with_little_free_memory_reports_it_and_waits():
    memory, said, client = [0.95], list[str](), Client()
    unused: Any = None
    model: Any = client
    gate = StepGate(2, lambda: memory[0], poll_s=0.01)
    work = Steps(CREW, model, unused, unused, "e", 256, 4096, dict, gate)
    asking = asyncio.create_task(work.answer("reader", "goal", "", [], said.append))
    for _ in range(100):
        if said:
            break
        await asyncio.sleep(0.01)
    assert said == ["waiting: memory is at 95% of the limit, 0 step(s) running"]
    assert not client.asked
    memory[0] = 0.5
    assert (await asyncio.wait_for(asking, 10))["text"] == "yes"
    assert said[-1] == ""


@pytest.mark.parametrize(
    "error", [RequestRejected("mlx answers 400: no"), EngineCrashed("three engines died")]
)
async def test_retrieve_step_for_a_goal_that_cannot_be_embedded_searches_by_words(
    knowledge: Knowledge, monkeypatch: pytest.MonkeyPatch, error: BackendError
):
    class Board:
        async def serving(self, model: str) -> str:
            return "mlx"

    async def refuse(model: str, texts: list[str]) -> list[list[float]]:
        raise error

    knowledge.write("reader", birds="The heron eats fish at dawn.")
    await knowledge.updater.update_all_agents_knowledge(knowledge.folders())
    monkeypatch.setattr(knowledge.models, "embed", refuse)
    model, board = cast(Any, Client()), cast(Any, Board())
    work = Steps(CREW, model, board, knowledge.search, "e", 256, 4096)
    found = await work.retrieve("reader", "what does the heron eat?", say)
    assert [source["file"] for source in found["sources"]] == ["birds.md"]
    assert "by words alone" in found["note"]


async def test_retrieve_step_for_an_agent_without_the_search_tool_finds_nothing():
    thinker = Agent("thinker", "a thinker", "Think.", "m", ("docs",), tools=())
    found = await steps(Client(), {**CREW, "thinker": thinker}).retrieve("thinker", "goal", say)
    assert found == {"sources": [], "note": ""}
