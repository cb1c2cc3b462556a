"""What `orchestrator/knowledge` needs of a model. `llm.client.LlmClient` implements the protocols."""

from __future__ import annotations

from typing import Protocol


class Embedder(Protocol):
    """Turns texts into vectors."""

    async def embed(self, model: str, texts: list[str]) -> list[list[float]]:
        """Return one vector of unit length per text, in order. Raise BackendError."""
        ...


class Reranker(Protocol):
    """Scores how well texts answer a query."""

    async def rerank(self, model: str, query: str, documents: list[str]) -> list[float]:
        """Return one score per document, in order; higher is better. Raise BackendError."""
        ...


class Writer(Protocol):
    """Answers messages with text."""

    async def chat(self, model: str, messages: list[dict[str, str]], max_tokens: int) -> str:
        """Return the model's answer. Raise BackendError."""
        ...
