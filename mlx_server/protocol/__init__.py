"""The protocol between gateway and engine: one frame per message, in both directions, over one socket pair.

The gateway starts `python -m mlx_server.engine --fd N`, where N is the engine's end of the socketpair. End of
file on either side means that the other process is gone. Messages to the engine are *operations*, messages
from it are *events*; each is an immutable msgspec struct, and the wire carries its fields under the same
names. A message with an unknown tag, an unknown field, a missing field or a wrong type is refused: both
processes have the same version, so such a message means a bug or damage.

    write:  stream.write(encode(Generate(id="r1", ...)))
    read:   for frame in frame_buffer.feed(data): decode_event(frame)    in the gateway
                                                  decode_op(frame)       in the engine

A client's request is encoded before it is accepted (`prepare`), except for its id and the tokens that were
already received; `PreparedOp.frame` adds these for each engine.

Times are in seconds, counts in tokens, unless a name says otherwise. A `Generate` that has to wait is sent
ahead with `check_only`, and answered by `Accepted` or `Failed`.

The life of a `Generate`: any number of `Prefill`, then a `Token` for each token with rising `index`, then one
`Done`; or one `Failed` at any point. A request that is resumed after a crash carries the token ids that the
gateway has already received in `emitted`: the engine computes these tokens again without sending them, and
continues with `index == len(emitted)`. `Token.text` may be empty while text is withheld (an incomplete UTF-8
character, or what may be the start of a stop string). `Done.text` is the rest that was withheld and belongs
to the answer, so the whole answer is every `Token.text` in order, then `Done.text`. The token that ends the
answer is not sent. `Usage.completion_tokens` counts all tokens sent, before and after a resume.
"""

from mlx_server.protocol.base import ProtocolError
from mlx_server.protocol.codec import PreparedOp, decode_event, decode_op, encode, prepare
from mlx_server.protocol.events import (
    Accepted,
    Alive,
    Done,
    Embedding,
    ErrorCode,
    Event,
    Failed,
    Hello,
    Loaded,
    Loading,
    Prefill,
    Probed,
    Ready,
    Reranked,
    Token,
    Unloaded,
)
from mlx_server.protocol.frames import MAX_FRAME_BYTES, FrameBuffer
from mlx_server.protocol.free_form import MAX_NESTING, check_json
from mlx_server.protocol.memory_figures import DraftUse, LoadedModelReport, MemoryUse, PromptCacheUse
from mlx_server.protocol.operations import (
    Begin,
    Cancel,
    Embed,
    Generate,
    Load,
    Op,
    Probe,
    Rerank,
    Shutdown,
    Unload,
)
from mlx_server.protocol.values import Logprobs, PromptReport, Sampling, TokenLogprob, ToolCall, Usage
from mlx_server.protocol.vectors import are_finite, pack_vectors, unpack_vectors

__all__ = [
    "MAX_FRAME_BYTES",
    "MAX_NESTING",
    "Accepted",
    "Alive",
    "Begin",
    "Cancel",
    "Done",
    "DraftUse",
    "Embed",
    "Embedding",
    "ErrorCode",
    "Event",
    "Failed",
    "FrameBuffer",
    "Generate",
    "Hello",
    "Load",
    "Loaded",
    "LoadedModelReport",
    "Loading",
    "Logprobs",
    "MemoryUse",
    "Op",
    "Prefill",
    "PreparedOp",
    "Probe",
    "Probed",
    "PromptCacheUse",
    "PromptReport",
    "ProtocolError",
    "Ready",
    "Rerank",
    "Reranked",
    "Sampling",
    "Shutdown",
    "Token",
    "TokenLogprob",
    "ToolCall",
    "Unload",
    "Unloaded",
    "Usage",
    "are_finite",
    "check_json",
    "decode_event",
    "decode_op",
    "encode",
    "pack_vectors",
    "prepare",
    "unpack_vectors",
]
