"""The errors by which the engine refuses or fails a request. Each error becomes a `Failed` event.

EngineError                 overloaded, internal_error; model_load_failed, if the models cannot be listed
├─ InternalError            a fault of this program made the work for this request fail: internal_error
├─ RequestError             the request cannot be served, now or later: context_exceeded, empty_prompt,
│                           not_an_embedding_model, not_a_chat_model, not_a_rerank_model,
│                           invalid_request, not_supported, model_not_found
├─ LoadError                the model cannot be loaded: model_load_failed
├─ DamagedWeights           the loaded model's weights were found damaged: model_load_failed
└─ InsufficientMemory       memory has no room: insufficient_memory, retryable if there may be room later
"""

from __future__ import annotations

from typing import Any, Literal

from mlx_server.protocol import Embed, ErrorCode, Failed, Generate, Load, Rerank

_DOES = {"generate": "generates text", "embed": "embeds text", "rerank": "ranks documents"}


class EngineError(Exception):
    """The base of the engine's errors. `code` is one of the protocol's error codes. `fields` holds details
    for programs, such as limits.
    """

    retryable = False

    def __init__(self, code: ErrorCode, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.code = code
        self.fields = fields

    def failed(self, request: str) -> Failed:
        """Return the event that tells that the request with the id `request` has failed with this error."""
        return Failed(request, self.code, str(self), self.retryable, self.fields)


class InternalError(EngineError):
    """The request failed because of a fault in this program. `work` says what the program was doing, for
    example "making its prompt".
    """

    def __init__(self, work: str) -> None:
        super().__init__(
            "internal_error",
            f"The engine failed at {work}; its log has the details. Other requests are not affected.",
        )


class RequestError(EngineError):
    """The request itself is invalid, or cannot be served by this model."""


def wrong_kind(
    op: Generate | Embed | Rerank | Load, kind: Literal["generate", "embed", "rerank"]
) -> RequestError:
    """Return the error for an operation that needs another kind of model: `kind` is what the requested model
    does.
    """
    code: ErrorCode
    match op:
        case Embed():
            code, verb = "not_an_embedding_model", "embed"
        case Rerank():
            code, verb = "not_a_rerank_model", "rank documents"
        case _:
            code, verb = "not_a_chat_model", "generate"
    return RequestError(code, f"Model {op.model} {_DOES[kind]}; it cannot {verb}.")


class LoadError(EngineError):
    """The model cannot be loaded, because its files are damaged or not supported."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__("model_load_failed", f"Model {model} could not be loaded: {reason}")


class DamagedWeights(EngineError):
    """The model's weights were found damaged after it had been loaded. `reason` names the file."""

    def __init__(self, model: str, reason: str) -> None:
        message = (
            f"Model {model} is no longer used, and what it has answered may be wrong, since its weights are "
            f"damaged: {reason}, and delete what it has computed with `vestal cache clear`."
        )
        super().__init__("model_load_failed", message)


class InsufficientMemory(EngineError):
    """Memory has no room for a model or a request. `fields` holds the numbers for programs, such as
    `needs_bytes` and `free_bytes`. `retryable` says whether there may be room later.
    """

    def __init__(self, message: str, *, retryable: bool, **fields: Any) -> None:
        super().__init__("insufficient_memory", message, **fields)
        self.retryable = retryable
