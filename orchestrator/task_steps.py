"""The steps of a task: find knowledge, answer, join. One step is at most one call to a model.

They know nothing of DBOS, return plain JSON, and wait for a backend that is away instead of failing.
Whatever a model says is text: it is shown and passed on, never acted upon.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from .agents import LEAD, Agent
from .errors import BackendError, BackendUnavailable, ModelMissing, TaskFailed
from .events import emit
from .knowledge.search import KnowledgeSearch
from .llm_client import LlmClient
from .llm_health import HealthBoard
from .patience import Patience

TOP_K = 4
MOST_NOTE_CHARS = 4000  # with the goal and the answer it fits a context of 2,048 tokens
MOST_GOAL_CHARS = 6000

T = TypeVar("T")
Say = Callable[[str], None]


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
    ) -> None:
        self._agents = agents
        self._client = client
        self._board = board
        self._search = search
        self._embed_model = embed_model
        self._max_answer_tokens = max_answer_tokens

    async def retrieve(self, name: str, goal: str, say: Say) -> dict[str, Any]:
        """{"sources": […], "note": ""}: the chunks nearest to the goal among those the agent may read."""
        agent = self._agent(name)
        if not await self._search.anything(agent.folders):
            return {"sources": [], "note": ""}

        async def find() -> dict[str, Any]:
            if await self._chat_only(agent.model):
                return {
                    "sources": [],
                    "note": f"no backend serves {self._embed_model}: answered without knowledge",
                }
            hits = await self._search.search(goal[:MOST_GOAL_CHARS], agent.folders, TOP_K)
            return {"sources": [hit.as_json() for hit in hits], "note": ""}

        return await self._patiently(find, say)

    async def answer(self, name: str, goal: str, sources: list[dict[str, Any]], say: Say) -> str:
        agent = self._agent(name)
        messages = [
            {"role": "system", "content": f"You are {agent.role}. {agent.prompt}"},
            {"role": "user", "content": _question(goal, sources)},
        ]
        return await self._patiently(
            lambda: self._client.chat(agent.model, messages, self._max_answer_tokens), say
        )

    async def join(self, goal: str, answers: Mapping[str, str], say: Say) -> str:
        """The lead's one answer out of the agents' answers."""
        lead = self._agent(LEAD)
        most = MOST_NOTE_CHARS // max(1, len(answers))
        drafts = "\n\n".join(f"{name} wrote:\n{text[:most]}" for name, text in answers.items())
        messages = [
            {
                "role": "system",
                "content": f"You are {lead.role}. Join the drafts into one answer to the goal.",
            },
            {"role": "user", "content": f"{drafts}\n\nGoal: {goal[:MOST_GOAL_CHARS]}"},
        ]
        return await self._patiently(
            lambda: self._client.chat(lead.model, messages, self._max_answer_tokens), say
        )

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
        patience = Patience()
        while True:
            try:
                return await call()
            except BackendError as error:
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


def _question(goal: str, sources: list[dict[str, Any]]) -> str:
    goal = goal[:MOST_GOAL_CHARS]
    if not sources:
        return goal
    notes, left = [], MOST_NOTE_CHARS
    for number, source in enumerate(sources, 1):
        note = f"[{number}] {source['file']} ({source['heading']})\n{source['text']}"[:left]
        notes.append(note)
        left -= len(note)
        if left <= 0:
            break
    return "Notes:\n" + "\n\n".join(notes) + f"\n\nGoal: {goal}"
