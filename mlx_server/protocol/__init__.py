"""What gateway and engine say to each other: one JSON object a line, both ways, over one socketpair.

The gateway starts `python -m mlx_server.engine --fd N`, N being the engine's end. End of file on either side
means that the other process is gone. Messages to the engine are *operations* (tag `op`), messages from it are
*events* (tag `ev`); each is a frozen dataclass below, and the wire carries its fields under the same names.

    write:  stream.write(encode(Generate(id="r1", ...)))
    read:   decode_event(line)   in the gateway        decode_op(line)   in the engine

Streams must be opened with `limit=MAX_LINE_BYTES`. Every field of time is in seconds, every count in tokens.

Life of one `Generate`: any number of `Prefill`, then `Token`s with rising `index`, then one `Done`; or one
`Failed` at any point. A resumed one carries the token ids that the gateway has already received in `emitted`:
the engine replays them silently and goes on with `index == len(emitted)`. `Token.text` may be empty, where
text is held back (an incomplete UTF-8 character, or the possible start of a stop string). `Done.text` is what
was still held and belongs to the answer. Text order is thus: all `Token.text`, then `Done.text`. The token
that ends the text is never sent. `Usage.completion_tokens` counts all tokens sent, before and after a resume.
"""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from mlx_server.protocol.codec import Decoder, ProtocolError
from mlx_server.protocol.codec import encode as _encode

__all__ = ["MAX_LINE_BYTES", "ProtocolError", "decode_event", "decode_op", "encode"]

MAX_LINE_BYTES = 64 * 1024 * 1024
"""Longest line either side accepts: a prompt of the gateway's body limit, escaped, with room to spare."""


# --- parts ---


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn. Temperature 0 is greedy; the neutral value of each other field switches it off.

    The random key of the token at position i is made from (seed, i) alone, so that a request gives the same
    text alone, in a batch, and across a crash. The gateway always sends a seed: it draws one where the client
    gave none.
    """

    seed: int = 0
    temperature: float = 0.8
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    repeat_last_tokens: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0


@dataclass(frozen=True)
class ToolCall:
    """A function that the model wants called."""

    name: str
    arguments: dict


@dataclass(frozen=True)
class TokenLogprob:
    """A token that might be drawn; `bytes` are its text's, which may be a part of a character only."""

    text: str
    bytes: tuple[int, ...]
    logprob: float


@dataclass(frozen=True)
class Logprobs:
    """The drawn token's chance, and the likeliest ones'."""

    drawn: TokenLogprob
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Usage:
    """Counts and durations of a finished generation, for this engine's share of it (durations) and for the
    whole request (counts)."""

    prompt_tokens: int
    completion_tokens: int
    load_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    cached_tokens: int = 0  # of the prompt: found in the cache


@dataclass(frozen=True)
class LoadedModelReport:
    """A model in memory. `expires_in_s` is None where it stays until it is told to go.

    `bytes` are its weights', `kv_bytes` what its requests hold beside them; `on_gpu`: both are the GPU's.
    """

    model: str
    kind: Literal["generate", "embed"]
    bytes: int
    context_tokens: int
    expires_in_s: float | None = None
    kv_bytes: int = 0
    on_gpu: bool = False


@dataclass(frozen=True)
class MemoryUse:
    """What the engine's memory ledger has down: weights, keys and values of what runs, what is promised to
    what runs (those keys and values are part of it), and the prompt cache's share of RAM."""

    weights_bytes: int = 0
    kv_bytes: int = 0
    promised_bytes: int = 0
    prompt_cache_bytes: int = 0


@dataclass(frozen=True)
class PromptCacheUse:
    """What the prompt cache holds, and since the engine's start what it has done, in blocks.

    `misses` had to be computed: they were never kept, or are `gone` or `broken`.
    """

    ram_bytes: int = 0
    ram_limit_bytes: int = 0
    disk_bytes: int = 0
    disk_limit_bytes: int = 0
    hits_ram: int = 0
    hits_disk: int = 0
    misses: int = 0
    gone: int = 0
    broken: int = 0
    written: int = 0
    written_bytes: int = 0
    not_written: int = 0


# --- operations: gateway → engine ---


@dataclass(frozen=True)
class Generate:
    """Generate from a chat (`messages`, through the model's template) or from plain text (`prompt`).

    `max_tokens` None means: until the end of the context. It counts `emitted` too. `keep_alive_s` None means
    the configured default, negative: stay loaded, 0: unload after this request.
    """

    KIND: ClassVar = "generate"
    id: str
    model: str
    kind: Literal["chat", "text"]
    messages: tuple[dict, ...] | None = None
    prompt: str | None = None
    prompt_ids: tuple[int, ...] | None = None  # in place of `prompt`
    count_only: bool = False  # answered by `Done` with the prompt's tokens, however many they are
    tools: tuple[dict, ...] | None = None
    template: dict | None = None  # further variables for the chat template, such as enable_thinking
    think: bool | None = None  # True: the model must be one that thinks; None: as its template has it
    json_schema: dict | None = None  # the answer (after its thoughts) is JSON of this schema
    calls: Literal["text", "auto", "only"] = "text"  # calls in it: not looked for, looked for, nothing else
    top_logprobs: int | None = None  # 0: the drawn token's alone
    emitted: tuple[int, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    context_tokens: int | None = None
    keep_alive_s: float | None = None


@dataclass(frozen=True)
class Cancel:
    """Drop request `id`; answered by `Done(reason="cancelled")` where it was known, else by nothing."""

    KIND: ClassVar = "cancel"
    id: str


@dataclass(frozen=True)
class Embed:
    """Embed `texts`; answered by `Embedding` or `Failed`. Without `truncate` a too long text fails."""

    KIND: ClassVar = "embed"
    id: str
    model: str
    texts: tuple[str, ...]
    truncate: bool = True
    keep_alive_s: float | None = None


@dataclass(frozen=True)
class Load:
    """Load a model, or renew its keep-alive; answered by `Loaded` or `Failed`."""

    KIND: ClassVar = "load"
    id: str
    model: str
    keep_alive_s: float | None = None


@dataclass(frozen=True)
class Unload:
    """Unload a model once its requests are done; answered by `Unloaded`, also where it was not loaded."""

    KIND: ClassVar = "unload"
    id: str
    model: str


@dataclass(frozen=True)
class Probe:
    """One token and one embedding from what is loaded, beside the users' work; answered by `Probed`."""

    KIND: ClassVar = "probe"
    id: str


@dataclass(frozen=True)
class Shutdown:
    """Stop gracefully: the six stages, then exit code 0. `drain_s` bounds the wait for what is in flight."""

    KIND: ClassVar = "shutdown"
    drain_s: float | None = None


@dataclass(frozen=True)
class Begin:
    """First operation to an engine that was started as a spare: from now on it is the engine."""

    KIND: ClassVar = "begin"


# --- events: engine → gateway ---


@dataclass(frozen=True)
class Hello:
    """First event of an engine, before any model is loaded. `blas` names the BLAS in use and where from."""

    KIND: ClassVar = "hello"
    pid: int
    version: str
    mlx_version: str
    blas: str


@dataclass(frozen=True)
class Ready:
    """The preloaded models are in, or have failed and said so: requests are served."""

    KIND: ClassVar = "ready"
    loaded: tuple[str, ...]
    start_s: float = 0.0


@dataclass(frozen=True)
class Loading:
    """A model is being loaded; `fraction` in 0..1."""

    KIND: ClassVar = "loading"
    model: str
    fraction: float


@dataclass(frozen=True)
class Loaded:
    """A model is in memory. `id` is that of the `Load`, None where a request or the preload asked for it."""

    KIND: ClassVar = "loaded"
    model: str
    bytes: int
    load_s: float
    id: str | None = None


@dataclass(frozen=True)
class Unloaded:
    """A model has left memory: told to (`id` given), expired, or evicted for another."""

    KIND: ClassVar = "unloaded"
    model: str
    id: str | None = None


@dataclass(frozen=True)
class Prefill:
    """`done` of `total` prompt tokens are processed."""

    KIND: ClassVar = "prefill"
    id: str
    done: int
    total: int


@dataclass(frozen=True)
class Token:
    """Token `index` (0 is the answer's first) of request `id`, and what it released, perhaps nothing.

    `text` is what is said to the client; thoughts and tool calls come apart from it. `prompt_tokens` comes
    with the answer's first token: some clients are to be told before anything is said.
    """

    KIND: ClassVar = "token"
    id: str
    token: int
    text: str
    index: int
    thinking: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    chances: Logprobs | None = None
    prompt_tokens: int | None = None


@dataclass(frozen=True)
class Done:
    """The end of a `Generate`. `text` is the last of the answer's text, that had been held back."""

    KIND: ClassVar = "done"
    id: str
    reason: Literal["stop", "length", "cancelled", "tool_calls"]
    usage: Usage
    text: str = ""
    thinking: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    stopped_by: str | None = None  # the stop string that ended it


@dataclass(frozen=True)
class Embedding:
    """The answer to `Embed`. `vectors` is base64 of little-endian float32, row by row: `unpack_vectors`."""

    KIND: ClassVar = "embedding"
    id: str
    vectors: str
    dim: int
    prompt_tokens: int
    load_s: float = 0.0
    embed_s: float = 0.0


@dataclass(frozen=True)
class Probed:
    """The answer to `Probe`: `ok` is False where a token or a vector was empty or not finite."""

    KIND: ClassVar = "probed"
    id: str
    ok: bool
    detail: str = ""


ErrorCode = Literal[
    "model_not_found",
    "model_load_failed",
    "context_exceeded",
    "empty_prompt",
    "not_an_embedding_model",
    "not_a_chat_model",
    "engine_crashed",
    "engine_unavailable",
    "overloaded",
    "invalid_request",
    "insufficient_memory",
]


@dataclass(frozen=True)
class Failed:
    """Request `id` cannot be served. `fields` holds the figures, e.g. prompt_tokens and context_tokens."""

    KIND: ClassVar = "failed"
    id: str
    code: ErrorCode
    message: str
    retryable: bool = False
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Alive:
    """Sent each second by the link's thread, so it comes also while the MLX thread works or hangs.

    `progress` counts the MLX thread's steps; with `working` true and `progress` unchanged for long, the
    engine is wedged. `loading` names the model being loaded, where one is. `footprint_bytes` is what the
    process holds in all, `limit_bytes` what its memory ledger lets it hold. The figures of `memory` and
    `prompt_cache` are half a second old at most while it works.
    """

    KIND: ClassVar = "alive"
    progress: int
    working: bool
    active_bytes: int
    loaded: tuple[LoadedModelReport, ...] = ()
    loading: str | None = None
    footprint_bytes: int = 0
    limit_bytes: int = 0
    memory: MemoryUse = field(default_factory=MemoryUse)
    prompt_cache: PromptCacheUse = field(default_factory=PromptCacheUse)


Op = Generate | Cancel | Embed | Load | Unload | Probe | Shutdown | Begin
Event = (
    Hello | Ready | Loading | Loaded | Unloaded | Prefill | Token | Done | Embedding | Probed | Failed | Alive
)
_OPS = (Generate, Cancel, Embed, Load, Unload, Probe, Shutdown, Begin)
_EVENTS = (
    Hello, Ready, Loading, Loaded, Unloaded, Prefill, Token, Done, Embedding, Probed, Failed, Alive,
)  # fmt: skip
_op_decoder = Decoder("op", _OPS)
_event_decoder = Decoder("ev", _EVENTS)


def encode(message: Op | Event) -> bytes:
    """`message` as one line, newline included."""
    return _encode(message, "op" if isinstance(message, _OPS) else "ev")


def decode_op(line: bytes) -> Op:
    """The operation in `line`. Raises ProtocolError, naming the field."""
    return _op_decoder.decode(line)


def decode_event(line: bytes) -> Event:
    """The event in `line`. Raises ProtocolError, naming the field."""
    return _event_decoder.decode(line)


def pack_vectors(rows: Sequence[Sequence[float]]) -> str:
    """Rows of equal length as base64 of little-endian float32."""
    flat = array("f", (value for row in rows for value in row))
    if sys.byteorder == "big":
        flat.byteswap()
    return base64.b64encode(flat.tobytes()).decode("ascii")


def unpack_vectors(vectors: str, dim: int) -> list[list[float]]:
    """The rows, `dim` floats each, in what `pack_vectors` made. Raises ProtocolError on a misfit."""
    flat = array("f")
    try:
        flat.frombytes(base64.b64decode(vectors, validate=True))
    except ValueError as error:
        raise ProtocolError(f"embedding.vectors: not base64 of float32 ({error})") from error
    if sys.byteorder == "big":
        flat.byteswap()
    if dim <= 0 or len(flat) % dim:
        raise ProtocolError(f"embedding.vectors: {len(flat)} floats are not rows of {dim}")
    return [flat[start : start + dim].tolist() for start in range(0, len(flat), dim)]
