"""Define the events: the messages from the engine to the gateway."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import field

from mlx_server.protocol.base import EngineEvent
from mlx_server.protocol.memory_figures import DraftUse, LoadedModelReport, MemoryUse, PromptCacheUse
from mlx_server.protocol.values import Logprobs, PromptReport, ToolCall, Usage


class Hello(EngineEvent, frozen=True):
    """The first event of an engine, sent before any model is loaded.

    `version` is the version of the MLX server's own code. `blas` names the BLAS library in use and its path.
    """

    pid: int
    version: str
    mlx_version: str
    blas: str


class Ready(EngineEvent, frozen=True):
    """The engine serves requests: each preloaded model is in memory (`loaded`), or its failure has been
    reported.

    `start_s` is how many seconds the start took.
    """

    loaded: tuple[str, ...]
    start_s: float = 0.0


class Loading(EngineEvent, frozen=True):
    """A model is being loaded; `fraction` (0 to 1) of it is done."""

    model: str
    fraction: float


class Loaded(EngineEvent, frozen=True):
    """A model is in memory. `id` is the id of the `Load` operation, None if a request for the model caused
    the load.

    `bytes` is the size of the model in memory, `load_s` how many seconds loading took.
    """

    model: str
    bytes: int
    load_s: float
    id: str | None = None


class Unloaded(EngineEvent, frozen=True):
    """A model has left memory. `id` is the id of the `Unload` operation, None if its keep-alive time ended or
    it was evicted.

    If its weights were found to be damaged while it was in use, `damage` is a sentence about that, else
    empty.
    """

    model: str
    id: str | None = None
    damage: str = ""


class Accepted(EngineEvent, frozen=True):
    """The answer to a `Generate` with `check_only`: the request can be served. `prompt_tokens` is None if it
    is unknown.
    """

    id: str
    prompt_tokens: int | None = None


class Prefill(EngineEvent, frozen=True):
    """The progress of a prompt: `done` of its `total` tokens have been processed."""

    id: str
    done: int
    total: int


class Token(EngineEvent, frozen=True):
    """Token number `index` of the answer (0 is the first), and the output that became complete with it, if
    any.

    `text` is the visible part of that output; `thinking` and `tool_calls` are separate. `logprobs` holds the
    log-probabilities, if the operation asked for them. Only the answer's first token carries `prompt_tokens`,
    because some APIs report that number before any text.
    """

    id: str
    token: int
    text: str
    index: int
    thinking: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    logprobs: Logprobs | None = None
    prompt_tokens: int | None = None


class Done(EngineEvent, frozen=True):
    """The end of a `Generate`.

    `text`, `thinking` and `tool_calls` hold the last part of the answer, which had been withheld until the
    end. `stopped_by` is the stop string that ended the answer, if one did. `context` holds all tokens of the
    conversation so far, and `prompt` describes the prompt, if the operation asked for them.
    """

    id: str
    reason: Literal["stop", "length", "cancelled", "tool_calls"]
    usage: Usage
    text: str = ""
    thinking: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    stopped_by: str | None = None
    context: tuple[int, ...] | None = None
    prompt: PromptReport | None = None


class Embedding(EngineEvent, frozen=True):
    """The answer to `Embed`. `vectors` holds one row of `dim` floats per text, encoded by `pack_vectors`.

    `load_s` and `embed_s` are the seconds that loading the model and computing took.
    """

    id: str
    vectors: str
    dim: int
    prompt_tokens: int
    load_s: float = 0.0
    embed_s: float = 0.0


class Reranked(EngineEvent, frozen=True):
    """The answer to `Rerank`: one score per document, in the order of the documents; higher is better.

    The scores are in 0..1 if the model's configuration ends in a sigmoid, and any numbers otherwise. `load_s`
    and `rank_s` are the seconds that loading the model and computing took.
    """

    id: str
    scores: tuple[float, ...]
    prompt_tokens: int
    load_s: float = 0.0
    rank_s: float = 0.0


class Probed(EngineEvent, frozen=True):
    """The answer to `Probe`. `ok` is False if a token, a vector or a score was empty or not finite; `detail`
    is a sentence about the result.
    """

    id: str
    ok: bool
    detail: str = ""


ErrorCode = Literal[
    "model_not_found",
    "model_load_failed",
    "context_exceeded",
    "empty_prompt",
    "not_an_embedding_model",
    "not_a_rerank_model",
    "not_a_chat_model",
    "engine_crashed",
    "internal_error",
    "engine_unavailable",
    "overloaded",
    "invalid_request",
    "not_supported",
    "insufficient_memory",
]


class Failed(EngineEvent, frozen=True):
    """The answer to a request that cannot be served. `code` and `fields`, which holds details such as
    prompt_tokens, are for programs; `message` is for people.

    `retryable` says whether the same request may succeed later.
    """

    id: str
    code: ErrorCode
    message: str
    retryable: bool = False
    fields: dict[str, Any] = field(default_factory=dict)


class Alive(EngineEvent, frozen=True):
    """The engine's heartbeat, which its main thread sends each second, even while the MLX thread hangs.

    `progress` counts the steps of the MLX thread. If `working` is True and `progress` has not changed for a
    long time, the MLX thread hangs. `active_bytes` is the memory that MLX has allocated, `footprint_bytes`
    the memory of the whole process, `limit_bytes` the limit below which the engine keeps that memory.
    `loaded` has the models in memory, and `loading` names the model that is being loaded, if any.

    `memory` has the bytes that weights, KV caches and the prompt cache take and that are reserved for running
    requests, `prompt_cache` has the prompt cache's size and counters, and `drafts` counts the tokens of
    speculative decoding. These three are at most half a second old while the engine works.
    `log_lines_dropped` counts the log lines that could not be written, for example because the disk was full.
    """

    progress: int
    working: bool
    active_bytes: int
    loaded: tuple[LoadedModelReport, ...] = ()
    loading: str | None = None
    footprint_bytes: int = 0
    limit_bytes: int = 0
    memory: MemoryUse = field(default_factory=MemoryUse)
    prompt_cache: PromptCacheUse = field(default_factory=PromptCacheUse)
    log_lines_dropped: int = 0
    drafts: DraftUse = field(default_factory=DraftUse)


Event = (
    Hello
    | Accepted
    | Ready
    | Loading
    | Loaded
    | Unloaded
    | Prefill
    | Token
    | Done
    | Embedding
    | Reranked
    | Probed
    | Failed
    | Alive
)
