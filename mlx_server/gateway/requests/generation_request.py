"""What every dialect is translated to: one kind of object for each thing the engine can be asked for.

A request is what the client wants, free of any dialect. With an id and the tokens the client already has, it
makes the operation for an engine, as often as engines are lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mlx_server import protocol
from mlx_server.gateway.requests.request_table import Lane

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
"""The schema of an answer that is JSON, whatever is in it."""


@dataclass(frozen=True)
class GenerationRequest:
    """A chat (`messages`) or plain text (`prompt`) to go on with. See `protocol.Generate` for the fields."""

    model: str
    kind: Literal["chat", "text"]
    messages: tuple[dict[str, Any], ...] | None = None
    prompt: str | None = None
    prompt_ids: tuple[int, ...] | None = None
    count_only: bool = False
    tools: tuple[dict[str, Any], ...] | None = None
    tool_choice: Literal["auto", "required"] | None = None
    think: bool | None = None
    template: dict[str, Any] | None = None
    json_schema: dict[str, Any] | None = None
    top_logprobs: int | None = None
    sampling: protocol.Sampling = field(default_factory=protocol.Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    context_tokens: int | None = None
    keep_alive_s: float | None = None

    @property
    def lane(self) -> Lane:
        return Lane.CONTROL if self.count_only else Lane.GENERATE

    @property
    def _calls(self) -> Literal["text", "auto", "only"]:
        if self.tool_choice == "required":
            return "only"
        # JSON that was asked for is no call, whatever it looks like.
        return "auto" if self.tools and self.json_schema is None else "text"

    def operation(self, request_id: str, emitted: Sequence[int]) -> protocol.Op:
        return protocol.Generate(
            id=request_id,
            model=self.model,
            kind=self.kind,
            messages=self.messages,
            prompt=self.prompt,
            prompt_ids=self.prompt_ids,
            count_only=self.count_only,
            tools=self.tools,
            calls=self._calls,
            think=self.think,
            template=self.template,
            json_schema=self.json_schema,
            top_logprobs=self.top_logprobs,
            emitted=tuple(emitted),
            sampling=self.sampling,
            max_tokens=self.max_tokens,
            stop=self.stop,
            context_tokens=self.context_tokens,
            keep_alive_s=self.keep_alive_s,
        )


@dataclass(frozen=True)
class EmbeddingRequest:
    model: str
    texts: tuple[str, ...]
    truncate: bool = True
    keep_alive_s: float | None = None

    @property
    def lane(self) -> Lane:
        return Lane.EMBED

    def operation(self, request_id: str, emitted: Sequence[int]) -> protocol.Op:
        return protocol.Embed(request_id, self.model, self.texts, self.truncate, self.keep_alive_s)


@dataclass(frozen=True)
class LoadRequest:
    model: str
    keep_alive_s: float | None = None

    @property
    def lane(self) -> Lane:
        return Lane.CONTROL

    def operation(self, request_id: str, emitted: Sequence[int]) -> protocol.Op:
        return protocol.Load(request_id, self.model, self.keep_alive_s)


@dataclass(frozen=True)
class UnloadRequest:
    model: str

    @property
    def lane(self) -> Lane:
        return Lane.CONTROL

    def operation(self, request_id: str, emitted: Sequence[int]) -> protocol.Op:
        return protocol.Unload(request_id, self.model)


Request = GenerationRequest | EmbeddingRequest | LoadRequest | UnloadRequest
