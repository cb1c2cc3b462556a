"""Define the steps of a task: plan, retrieve knowledge, answer, join. A step makes at most one call to a
model, which is repeated only if it fails.

Steps do not know DBOS, return plain JSON, and wait for an absent backend instead of failing. What a model
writes is text: it is shown and passed on, never interpreted.
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
    EngineCrashed,
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
MAX_QUERY_CHARS = 6000
PLAN_TOKENS_EACH = 64  # one line per agent; stops small models that do not end
# Shares of the estimated room; the next is tried if the backend says that the prompt is too long.
SHARES = (1.0, 0.6)
LAST_SHARE = 0.3

T = TypeVar("T")
Say = Callable[[str], None]
Notes = Callable[[], Mapping[str, Mapping[str, object]]]  # folder → {"text": what its files are about}


class Steps:
    """Runs each step of a task: plan, retrieve, answer or join. Each raises TaskFailed if it cannot succeed.

    It stores nothing: `task_queue.py` stores each step's result, so that no finished step runs twice.

    `context_tokens` is the upper limit of the context that a model is asked to use, and is assumed if the
    model's context length is unknown. `notes` returns the nightly note about each knowledge folder, by the
    folder's name. `gate` limits how many steps run in parallel while memory is short (None: no limit).
    """

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
        """Return the names of the agents that the lead may ask: all others, or the lead itself if there are
        no others.
        """
        return tuple(name for name in self._agents if name != LEAD) or (LEAD,)

    async def plan(self, goal: str, say: Say) -> dict[str, Any]:
        """Ask the lead's model to divide the goal among the agents. Return {"parts": [{"agent", "goal"}],
        "note": ""}, the plan. If the model's answer names no agent, every agent gets the whole goal (as an
        empty "goal"), and the note says so.

        `say` is called with a sentence when the step has to wait. Raises TaskFailed if the model gives no
        answer.
        """
        crew = {name: self._agents[name] for name in self.crew()}
        lead = self._agent(LEAD)
        about = await self._about(crew)

        def ask(room: int) -> Messages:
            return prompts.plan(lead, goal, crew, room, about)

        text = await self._ask(lead, ask, PLAN_TOKENS_EACH * min(len(crew), plan.MAX_SUBTASKS), say)
        parts, note = plan.read(text, [*crew, LEAD]), ""
        if not parts:
            parts, note = (
                plan.everybody(crew),
                "The lead named no agent, so every agent is asked.",
            )
        return {"parts": [vars(part) for part in parts], "note": note}

    async def retrieve(self, name: str, goal: str, say: Say) -> dict[str, Any]:
        """Search the knowledge of the agent `name`. Return {"sources": […], "note": …}: the chunks that match
        the goal best, and a sentence that says why only words were searched or why the chunks were not
        reranked, usually "". There are no sources if the agent may not search or has no knowledge.

        `say` is called with a sentence when the step has to wait. Raises TaskFailed if the search cannot
        succeed.
        """
        agent = self._agent(name)
        query = goal[:MAX_QUERY_CHARS]

        async def with_fallback_to_words() -> dict[str, Any]:
            findings = await self._search.find(query, Scope(agent.folders), TOP_K)
            return {"sources": [hit.as_json() for hit in findings.hits], "note": findings.note}

        async def find() -> dict[str, Any]:
            if not agent.searches or not await self._search.has_knowledge(agent.folders):
                return {"sources": [], "note": ""}
            if await self._chat_only(agent.model):
                return await with_fallback_to_words()
            try:
                hits = await self._search.search(query, agent.folders, TOP_K)
            except (RequestRejected, EngineCrashed):  # the text can never be embedded, so words must suffice
                return await with_fallback_to_words()
            return {"sources": [hit.as_json() for hit in hits], "note": ""}

        return await self._with_retries(find, say)

    async def answer(
        self, name: str, goal: str, part: str, sources: list[dict[str, Any]], say: Say
    ) -> dict[str, Any]:
        """Ask the model of the agent `name` to work on its `part` of the goal ("": on the whole goal), with
        the `sources` that `retrieve` found. Return {"text", "sources_used"}: the answer, and how many of the
        first sources fitted into the prompt.

        `say` is called with a sentence when the step has to wait. Raises TaskFailed if the model gives no
        answer.
        """
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
        """Ask the lead's model to write one answer to the goal from `answers`, which maps the agents' names
        to their answers, and return it.

        `say` is called with a sentence when the step has to wait. Raises TaskFailed if the model gives no
        answer.
        """
        lead = self._agent(LEAD)
        return await self._ask(
            lead, lambda room: prompts.join(lead, goal, answers, room), self._max_answer_tokens, say
        )

    async def _ask(self, agent: Agent, ask: Callable[[int], Messages], answer_tokens: int, say: Say) -> str:
        """Ask the agent's model, and return its answer, which has at most `answer_tokens` tokens. `ask`
        builds the messages, so that they have at most as many tokens as its argument says.

        If the backend says that the prompt is too long, ask again with shorter messages, at most twice. `say`
        is called with a sentence when the step has to wait. Raises TaskFailed if the model gives no answer.
        """

        async def call() -> str:
            known = await self._client.context_tokens(agent.model) or self._context_tokens
            context = min(known, self._context_tokens)
            room, max_tokens = budget.room(context, answer_tokens)
            for share in SHARES:
                try:
                    return await self._client.chat(agent.model, ask(int(room * share)), max_tokens, context)
                except RequestRejected as error:
                    if "context" not in error.message:
                        raise
            return await self._client.chat(agent.model, ask(int(room * LAST_SHARE)), max_tokens, context)

        return await self._with_retries(call, say)

    async def _about(self, crew: Mapping[str, Agent]) -> dict[str, str]:
        """Return, by the name of each agent in `crew`, what the agent's knowledge is about: the joined notes
        on the knowledge folders that the agent may search. The nightly service writes these notes. The text
        is "" if there is no note, the agent may not search, or the database fails.
        """
        if not any(agent.searches for agent in crew.values()):
            return dict.fromkeys(crew, "")
        try:
            notes = await asyncio.to_thread(self._notes)
        except DatabaseFailed as error:  # the notes are optional, so continue without them
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
        """Return True if a backend serves the chat model `chat_model`, but none serves the embedding model. A
        task then continues at once if it searches by words alone, and would have to wait if it searched by
        embeddings.
        """
        if await self._board.serving(self._embed_model) is not None:
            return False
        return await self._board.serving(chat_model) is not None

    async def _with_retries(self, call: Callable[[], Awaitable[T]], say: Say) -> T:
        """Call until `call` succeeds, and return its result. After a failure, try again when a backend's
        health changes, or after growing delays.

        Raises TaskFailed if trying again does not help, or the limit of StepRetry is reached. `say` is called
        with what the step waits for.
        """
        retry = StepRetry()
        while True:
            try:
                async with self._gate.turn(say):
                    return await call()
            except (BackendError, DatabaseFailed) as error:
                now = time.monotonic()
                retry = retry.after(error, now)
                if not error.retryable or retry.exhausted(error, now):
                    raise TaskFailed(error.message) from error
                say(f"waiting: {error.message}")
                emit("step_waits", error.message, attempt=retry.waits, next_try_in_s=retry.delay_s)
                if isinstance(error, (BackendUnavailable, ModelMissing)):
                    await self._board.wait_for_change(retry.delay_s)
                else:
                    await asyncio.sleep(retry.delay_s)


def _note_of(agent: Agent, notes: Mapping[str, Mapping[str, object]]) -> str:
    """Return the texts of the notes on the folders that the agent may search, joined by spaces; "" if there
    are none. `notes` maps each folder's name to its note, a mapping whose key "text" has the text.
    """
    folders = () if not agent.searches else notes if agent.folders is None else agent.folders
    return " ".join(str(notes[folder].get("text") or "") for folder in folders if folder in notes).strip()
