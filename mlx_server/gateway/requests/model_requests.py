"""The requests that an engine can serve: generate, embed, rerank, load, unload. Pure.

A model request is independent of any dialect; each dialect translates its bodies to model requests.
`sendable` encodes a model request as an operation of the protocol. The request id, and the ids of the tokens
that the client already has, are added each time the request is sent to an engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mlx_server import protocol
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.requests.table.admission import Lane

SEED_MASK = 2**63 - 1
"""Seeds are limited to 63 bits, the most that the protocol can carry."""

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
"""The JSON schema of an answer that may be any JSON object."""


@dataclass(frozen=True)
class GenerationRequest:
    """A request to continue a chat (`messages`), a text (`prompt`) or token ids (`prompt_ids`).

    The fields have the names and meanings of `protocol.Generate`, with two exceptions. If `tool_choice` is
    "required", the answer must be a call to one of the `tools`, and `json_schema` is the schema of that call.
    Otherwise, `json_schema` is the schema that the answer must match unless the model calls one of the
    `tools`. `allowed_calls` are the names of the tools that may be called (None: all).
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
    allowed_calls: frozenset[str] | None = None
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
    requested_model: str = ""

    @property
    def lane(self) -> Lane:
        return Lane.CONTROL if self.count_only else Lane.GENERATE

    @property
    def _effective_tool_choice(self) -> Literal["none", "auto", "required"]:
        if self.tool_choice == "required":
            return "required"
        if self.json_schema is not None and not self._callable:
            return "none"  # the answer matches the schema, even if it looks like a call
        return "auto" if self.tools else "none"

    @property
    def _effective_json_schema(self) -> dict[str, Any] | None:
        """Return the JSON schema that the whole answer must match, whether it calls tools or not. Raises
        BadRequest if `json_schema` is nested too deeply, and protocol.ProtocolError if it is not JSON.
        """
        if self.json_schema is None or self._effective_tool_choice != "auto":
            return self.json_schema
        protocol.check_json("json_schema", self.json_schema)
        return _answer_or_calls(self.json_schema, self._callable)

    @property
    def _callable(self) -> list[str]:
        """Return the names of the tools that the answer may call."""
        names = dict.fromkeys(tool["function"]["name"] for tool in self.tools or ())
        return [name for name in names if self.allowed_calls is None or name in self.allowed_calls]

    def operation(self) -> protocol.Op:
        """Return the request as an operation of the protocol between gateway and engine, still without the
        request id and the tokens that the client has.

        Raises BadRequest if `json_schema` is nested too deeply, and protocol.ProtocolError if it is not JSON.
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
            json_schema=self._effective_json_schema,
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
            requested_model=self.requested_model,
        )


def _answer_or_calls(schema: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the JSON schema of an answer that either matches `schema`, or calls the tools with these
    `names`. Raises BadRequest if `schema` is nested too deeply.

    A grammar that allowed only `schema` would silently forbid the calls, and the model would invent what the
    tools return. A call has the same form as one that the client requires. Its arguments may be any object,
    as in an answer without a schema, so that a tool whose own schema no grammar can express does not fail the
    request.

    The engine extracts `schema` from the result (with its function `answer_schema`) for two purposes: to
    check the client's schema alone, and to limit only the answer of models whose calls the grammar does not
    apply to.
    """
    call = {
        "type": "object",
        "properties": {"name": {"enum": list(names)}, "arguments": {"type": "object"}},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
    calls = {"type": "array", "items": {"$ref": "#/$defs/call"}, "minItems": 1}
    try:
        answer = with_moved_references(schema, "answer")
    except RecursionError as error:
        raise BadRequest("invalid_request", "the JSON schema of the answer is nested too deeply") from error
    definitions = {"answer": answer, "call": call, "calls": calls}
    return {"anyOf": [{"$ref": f"#/$defs/{name}"} for name in definitions], "$defs": definitions}


def with_moved_references(schema: Any, name: str) -> Any:
    """Return a copy of a JSON schema that becomes the definition `name` (in `$defs`) of a larger schema. A
    JSON pointer in a reference starts at the root, so each one is extended by the path of the definition.
    Other references, such as one to an anchor, remain: the engine looks for the nearest schema that they can
    mean. So do references in a part with an `$id`, because pointers there start at that part. Raises
    RecursionError if `schema` is nested too deeply.
    """
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved(key, value, name) for key, value in schema.items()}
    reference = schema.get("$ref")
    if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
        moved["$ref"] = f"#/$defs/{name}{reference[1:]}"
    return moved


_VALUES = ("const", "enum", "default", "examples")
_SCHEMAS_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")


def _moved(key: str, value: Any, name: str) -> Any:
    """Return the value of the keyword `key` with the references that `with_moved_references` moves."""
    if isinstance(value, list) and key not in _VALUES:
        return [_moved("", item, name) for item in value]
    if not isinstance(value, dict) or key in _VALUES:
        return value
    if key in _SCHEMAS_BY_NAME:
        return {named: _moved("", item, name) for named, item in value.items()}
    own = value.get("$id")
    return value if isinstance(own, str) and not own.startswith("#") else with_moved_references(value, name)


@dataclass(frozen=True)
class EmbeddingRequest:
    """A request to embed `texts`. A text that is longer than the model's context, or than `context_tokens` if
    that is less, is shortened if `truncate` is True; otherwise the request fails. If several models share
    weights that are loaded under the name `model`, `requested_model` is the one that the client asked for; it
    is empty if that is `model`.
    """

    model: str
    texts: tuple[str, ...]
    truncate: bool = True
    keep_alive_s: float | None = None
    context_tokens: int | None = None
    requested_model: str = ""

    @property
    def lane(self) -> Lane:
        return Lane.EMBED

    def operation(self) -> protocol.Op:
        return protocol.Embed(
            "",
            self.model,
            self.texts,
            self.truncate,
            self.keep_alive_s,
            self.context_tokens,
            requested_model=self.requested_model,
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
    requested_model: str = ""

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
            requested_model=self.requested_model,
        )


@dataclass(frozen=True)
class LoadRequest:
    """A request to load a model, or to renew its keep-alive if it is loaded. The model is unloaded after it
    has been unused for `keep_alive_s` seconds. None leaves the keep-alive as it is (at first, the configured
    default), and a negative value keeps the model loaded forever. Until its first use, the model is kept for
    `expires_in_s` seconds at most, unless that is None. `resumed` is True if an engine that was lost had
    loaded it. If several models share weights that are loaded under the name `model`, `requested_model` is
    the one that the client asked for; it is empty if that is `model`.
    """

    model: str
    keep_alive_s: float | None = None
    expires_in_s: float | None = None
    resumed: bool = False
    requested_model: str = ""

    @property
    def lane(self) -> Lane:
        return Lane.CONTROL

    def operation(self) -> protocol.Op:
        return protocol.Load(
            "", self.model, self.keep_alive_s, self.expires_in_s, self.resumed, self.requested_model
        )


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
