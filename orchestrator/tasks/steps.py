"""The steps of a task: plan, find knowledge, answer, join. One step is at most one call to a model.

They know nothing of DBOS, return plain JSON, and wait for a backend that is away instead of failing.
Whatever a model says is text: it is shown and passed on, never acted upon.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from orchestrator.agents.agents import LEAD, Agent
from orchestrator.errors import (
    BackendError,
    BackendUnavailable,
    DatabaseFailed,
    ModelMissing,
    RequestRejected,
    TaskFailed,
)
from orchestrator.events import emit
from orchestrator.knowledge.search.scope import Scope
from orchestrator.knowledge.search.search import KnowledgeSearch
from orchestrator.llm.client import LlmClient
from orchestrator.llm.health import HealthBoard
from orchestrator.tasks import budget, plan, prompts
from orchestrator.tasks.prompts import Messages
from orchestrator.tasks.step_gate import StepGate
from orchestrator.tasks.step_retry import StepRetry

TOP_K = 4
MOST_QUERY_CHARS = 6000
PLAN_TOKENS_EACH = 64  # a line for an agent; a small model that writes on and on is stopped soon
# Of the room there is by estimate: less where the host says that the prompt is too long for the context.
SHARES = (1.0, 0.6)
LEAST_SHARE = 0.3

T = TypeVar("T")
Say = Callable[[str], None]
Notes = Callable[[], Mapping[str, Mapping[str, object]]]  # folder → {"text": what its files are about}


class Steps:
    """The work itself, for whichever engine makes it durable."""

    def __init__(
        self,
        agents: Mapping[str, Agent],
        client: LlmClient,
        board: HealthBoard,
        search: KnowledgeSearch,
        embed_model: str,
        max_answer_tokens: int,
        context_tokens: int,
        notes: Notes = dict,
        gate: StepGate | None = None,
    ) -> None:
        self._agents = agents
        self._client = client
        self._board = board
        self._search = search
        self._embed_model = embed_model
        self._max_answer_tokens = max_answer_tokens
        self._context_tokens = context_tokens
        self._notes = notes
        self._gate = gate or StepGate(1, lambda: 0.0)

    def crew(self) -> tuple[str, ...]:
        """Whom the lead may ask: all others, or itself where it is alone."""
        return tuple(name for name in self._agents if name != LEAD) or (LEAD,)

    async def plan(self, goal: str, say: Say) -> dict[str, Any]:
        """{"parts": [{"agent", "goal"}], "note": ""}: who does what; everybody if the lead has no plan."""
        crew = {name: self._agents[name] for name in self.crew()}
        lead = self._agent(LEAD)
        about = await self._about(crew)

        def ask(room: int) -> Messages:
            return prompts.plan(lead, goal, crew, room, about)

        said = await self._ask(lead, ask, PLAN_TOKENS_EACH * min(len(crew), plan.MOST_PARTS), say)
        parts, note = plan.read(said, [*crew, LEAD]), ""
        if not parts:
            parts, note = (
                plan.everybody(crew),
                "the lead named no agent: every one is asked",
            )
        return {"parts": [vars(part) for part in parts], "note": note}

    async def retrieve(self, name: str, goal: str, say: Say) -> dict[str, Any]:
        """{"sources": […], "note": ""}: the chunks nearest to the goal among those the agent may read."""
        agent = self._agent(name)
        query = goal[:MOST_QUERY_CHARS]

        async def by_what_there_is() -> dict[str, Any]:
            findings = await self._search.find(query, Scope(agent.folders), TOP_K)
            return {"sources": [hit.as_json() for hit in findings.hits], "note": findings.note}

        async def find() -> dict[str, Any]:
            if not agent.searches or not await self._search.has_knowledge(agent.folders):
                return {"sources": [], "note": ""}
            if await self._chat_only(agent.model):
                return await by_what_there_is()
            try:
                hits = await self._search.search(query, agent.folders, TOP_K)
            except RequestRejected:  # it cannot be embedded, now or later: the words must do
                return await by_what_there_is()
            return {"sources": [hit.as_json() for hit in hits], "note": ""}

        return await self._patiently(find, say)

    async def answer(
        self, name: str, goal: str, part: str, sources: list[dict[str, Any]], say: Say
    ) -> dict[str, Any]:
        """{"text", "sources_used"}: the agent's answer, and how many of the sources it was shown."""
        agent = self._agent(name)
        about, used = (await self._about({name: agent}))[name], 0

        def ask(room: int) -> Messages:
            nonlocal used
            question = prompts.answer(agent, goal, part, sources, room, about)
            used = question.sources_used
            return question.messages

        text = await self._ask(agent, ask, self._max_answer_tokens, say)
        return {"text": text, "sources_used": used}

    async def join(self, goal: str, answers: Mapping[str, str], say: Say) -> str:
        """The lead's one answer out of the agents' answers."""
        lead = self._agent(LEAD)
        return await self._ask(
            lead, lambda room: prompts.join(lead, goal, answers, room), self._max_answer_tokens, say
        )

    async def _ask(self, agent: Agent, ask: Callable[[int], Messages], answer_tokens: int, say: Say) -> str:
        """One call to the agent's model, its messages made for the room there is in the model's context."""

        async def call() -> str:
            known = await self._client.context_tokens(agent.model) or self._context_tokens
            context = min(known, self._context_tokens)
            room, most = budget.room(context, answer_tokens)
            for share in SHARES:
                try:
                    return await self._client.chat(agent.model, ask(int(room * share)), most, context)
                except RequestRejected as error:
                    if "context" not in error.message:
                        raise
            return await self._client.chat(agent.model, ask(int(room * LEAST_SHARE)), most, context)

        return await self._patiently(call, say)

    async def _about(self, crew: Mapping[str, Agent]) -> dict[str, str]:
        """What the files of each agent are about, as nightly noted it; "" where there is nothing to tell."""
        if not any(agent.searches for agent in crew.values()):
            return dict.fromkeys(crew, "")
        try:
            notes = await asyncio.to_thread(self._notes)
        except DatabaseFailed as error:  # a help, and no more: the step does without
            emit("notes_not_read", str(error))
            notes = {}
        return {name: _note_of(agent, notes) for name, agent in crew.items()}

    def _agent(self, name: str) -> Agent:
        if name not in self._agents:
            raise TaskFailed(
                f"the agent {name} is no longer configured; there are: {', '.join(self._agents)}."
            )
        return self._agents[name]

    async def _chat_only(self, chat_model: str) -> bool:
        """Chat is served and embeddings are not: waiting for knowledge would only hold the task up."""
        if await self._board.serving(self._embed_model) is not None:
            return False
        return await self._board.serving(chat_model) is not None

    async def _patiently(self, call: Callable[[], Awaitable[T]], say: Say) -> T:
        """Call until it succeeds: at once when a backend's health changes, else at growing intervals."""
        patience = StepRetry()
        while True:
            try:
                async with self._gate.turn(say):
                    return await call()
            except (BackendError, DatabaseFailed) as error:
                now = time.monotonic()
                patience = patience.after(error, now)
                if not error.retryable or patience.exhausted(error, now):
                    raise TaskFailed(error.message) from error
                say(f"waiting: {error.message}")
                emit("step_waits", error.message, attempt=patience.waits, next_try_in_s=patience.delay_s)
                if isinstance(error, (BackendUnavailable, ModelMissing)):
                    await self._board.wait_for_change(patience.delay_s)
                else:
                    await asyncio.sleep(patience.delay_s)


def _note_of(agent: Agent, notes: Mapping[str, Mapping[str, object]]) -> str:
    """The notes on the folders that the agent may search, one after the other."""
    folders = () if not agent.searches else notes if agent.folders is None else agent.folders
    return " ".join(str(notes[folder].get("text") or "") for folder in folders if folder in notes).strip()
