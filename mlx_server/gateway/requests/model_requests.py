"""The requests that an engine can serve: generate, embed, rerank, load, unload. Pure.

A model request is independent of any dialect; each dialect translates its bodies to model requests.
`sendable` encodes a model request as an operation of the protocol. The request id, and the ids of the tokens
that the client already has, are added each time the request is sent to an engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mlx_server import protocol
from mlx_server.gateway.requests.table.admission import Lane

SEED_MASK = 2**63 - 1
"""Seeds are limited to 63 bits, the most that the protocol can carry."""

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
"""The JSON schema of an answer that may be any JSON object."""


@dataclass(frozen=True)
class GenerationRequest:
    """A request to continue a chat (`messages`), a text (`prompt`) or token ids (`prompt_ids`).

    The fields have the names and meanings of `protocol.Generate`. If `tool_choice` is "required", the answer
    must be a call to one of the `tools`.
    """

    model: str
    kind: Literal["chat", "text"]
    messages: tuple[dict[str, Any], ...] | None = None
    images: tuple[str, ...] = ()
    prompt: str | None = None
    prompt_ids: tuple[int, ...] | None = None
    count_only: bool = False
    tools: tuple[dict[str, Any], ...] | None = None
    tool_choice: Literal["auto", "required"] | None = None
    think: bool | None = None
    template: dict[str, Any] | None = None
    chat_template: str | None = None
    json_schema: dict[str, Any] | None = None
    top_logprobs: int | None = None
    sampling: protocol.Sampling = field(default_factory=protocol.Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    context_tokens: int | None = None
    keep_alive_s: float | None = None
    truncate: bool = False
    shift: bool = False
    shortens_text: bool = False
    suffix: str | None = None
    context_ids: tuple[int, ...] = ()
    returns_context: bool = False
    reports_prompt: bool = False
    reports_pieces: bool = False
    prompt_logprobs: bool = False
    adds_special_tokens: bool = True

    @property
    def lane(self) -> Lane:
        return Lane.CONTROL if self.count_only else Lane.GENERATE

    @property
    def _effective_tool_choice(self) -> Literal["none", "auto", "required"]:
        if self.tool_choice == "required":
            return "required"
        # An answer in a given JSON schema is not a tool call, even if it looks like one.
        return "auto" if self.tools and self.json_schema is None else "none"

    def operation(self) -> protocol.Op:
        """Return the request as an operation of the protocol between gateway and engine, still without the
        request id and the tokens that the client has.
        """
        return protocol.Generate(
            id="",
            model=self.model,
            kind=self.kind,
            messages=self.messages,
            images=self.images,
            prompt=self.prompt,
            prompt_ids=self.prompt_ids,
            count_only=self.count_only,
            tools=self.tools,
            tool_choice=self._effective_tool_choice,
            think=self.think,
            template=self.template,
            chat_template=self.chat_template,
            json_schema=self.json_schema,
            top_logprobs=self.top_logprobs,
            sampling=self.sampling,
            max_tokens=self.max_tokens,
            stop=self.stop,
            context_tokens=self.context_tokens,
            keep_alive_s=self.keep_alive_s,
            truncate=self.truncate,
            shift=self.shift,
            shortens_text=self.shortens_text,
            suffix=self.suffix,
            context_ids=self.context_ids,
            returns_context=self.returns_context,
            reports_prompt=self.reports_prompt,
            reports_pieces=self.reports_pieces,
            prompt_logprobs=self.prompt_logprobs,
            adds_special_tokens=self.adds_special_tokens,
        )


@dataclass(frozen=True)
class EmbeddingRequest:
    """A request to embed `texts`. A text that is longer than the model's context, or than `context_tokens` if
    that is less, is shortened if `truncate` is True; otherwise the request fails.
    """

    model: str
    texts: tuple[str, ...]
    truncate: bool = True
    keep_alive_s: float | None = None
    context_tokens: int | None = None

    @property
    def lane(self) -> Lane:
        return Lane.EMBED

    def operation(self) -> protocol.Op:
        return protocol.Embed(
            "", self.model, self.texts, self.truncate, self.keep_alive_s, self.context_tokens
        )


@dataclass(frozen=True)
class RerankRequest:
    """A request to score `documents` by how well they answer `query`. The fields have the names and meanings
    of `protocol.Rerank`.
    """

    model: str
    query: str
    documents: tuple[str, ...]
    instruction: str | None = None
    truncate: bool = True
    max_document_tokens: int | None = None
    raw_scores: bool = False

    @property
    def lane(self) -> Lane:
        return Lane.RERANK

    def operation(self) -> protocol.Op:
        return protocol.Rerank(
            "",
            self.model,
            self.query,
            self.documents,
            self.instruction,
            self.truncate,
            self.max_document_tokens,
            self.raw_scores,
        )


@dataclass(frozen=True)
class LoadRequest:
    """A request to load a model, or to renew its keep-alive if it is loaded. The model is unloaded after it
    has been unused for `keep_alive_s` seconds. None stands for the configured default, and a negative value
    keeps the model loaded forever.
    """

    model: str
    keep_alive_s: float | None = None

    @property
    def lane(self) -> Lane:
        return Lane.CONTROL

    def operation(self) -> protocol.Op:
        return protocol.Load("", self.model, self.keep_alive_s)


@dataclass(frozen=True)
class UnloadRequest:
    """A request to unload a model once its running requests have ended."""

    model: str

    @property
    def lane(self) -> Lane:
        return Lane.CONTROL

    def operation(self) -> protocol.Op:
        return protocol.Unload("", self.model)


ModelRequest = GenerationRequest | EmbeddingRequest | RerankRequest | LoadRequest | UnloadRequest
