"""Define what `orchestrator/knowledge` needs from models, as protocols that `llm.client.LlmClient`
implements.
"""

from __future__ import annotations

from typing import Protocol


class Embedder(Protocol):
    """Turns texts into vectors."""

    async def embed(self, model: str, texts: list[str]) -> list[list[float]]:
        """Return one vector of unit norm per text, in order.

        Raises RequestRejected if the texts are refused, EngineCrashed if the backend's engine dies of them,
        BatchTimedOut if several texts take too long but fewer may not, and another BackendError if no backend
        can embed texts at present.
        """
        ...


class Reranker(Protocol):
    """Scores how well texts answer a query."""

    async def rerank(self, model: str, query: str, documents: list[str]) -> list[float]:
        """Return one score per document, in order; higher is better. Raises BackendError if no backend can
        score them.
        """
        ...


class Writer(Protocol):
    """Answers messages with text."""

    async def chat(self, model: str, messages: list[dict[str, str]], max_tokens: int) -> str:
        """Return the model's answer. Raises BackendError if no backend can give one."""
        ...
