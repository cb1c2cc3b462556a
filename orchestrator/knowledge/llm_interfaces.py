"""What knowledge asks of the LLMs; `llm.client.LlmClient` is both."""

from __future__ import annotations

from typing import Protocol


class Embedder(Protocol):
    async def embed(self, model: str, texts: list[str]) -> list[list[float]]:
        """One unit-length vector a text, in order; raises BackendError."""
        ...


class Writer(Protocol):
    async def chat(self, model: str, messages: list[dict[str, str]], max_tokens: int) -> str:
        """The model's answer; raises BackendError."""
        ...
