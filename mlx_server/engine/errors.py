"""The errors by which the engine refuses or fails a request. Each error becomes a `Failed` event.

EngineError                 overloaded; model_load_failed, when the models cannot even be listed
├─ InternalError            the work for this request failed by a fault of this program: internal_error
├─ RequestError             the request cannot be served, now or later: context_exceeded, empty_prompt,
│                           not_an_embedding_model, not_a_chat_model, invalid_request, model_not_found
├─ LoadError                the model cannot be loaded: model_load_failed
└─ InsufficientMemory       memory has no room: insufficient_memory, retryable if there may be room later
"""

from __future__ import annotations

from typing import Any

from mlx_server.protocol import ErrorCode, Failed


class EngineError(Exception):
    """The base of the engine's errors. `code` is one of the protocol's error codes; `fields` are figures for
    programs.
    """

    retryable = False

    def __init__(self, code: ErrorCode, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.code = code
        self.fields = fields

    def failed(self, request: str) -> Failed:
        """Return the event that fails this request."""
        return Failed(request, self.code, str(self), self.retryable, self.fields)


class InternalError(EngineError):
    """The request failed because of a fault in this program. `work` says what the program was doing, such as
    "making its prompt".
    """

    def __init__(self, work: str) -> None:
        super().__init__(
            "internal_error",
            f"The engine failed at {work}; its log has the details. Other requests are not affected.",
        )


class RequestError(EngineError):
    """The request itself is invalid, or cannot be served by this model."""


class LoadError(EngineError):
    """The model cannot be loaded, because its files are damaged or not supported."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__("model_load_failed", f"Model {model} could not be loaded: {reason}")


class InsufficientMemory(EngineError):
    """The memory is too small for a model or a request; `fields` holds the figures, in bytes."""

    def __init__(self, message: str, *, retryable: bool, **fields: Any) -> None:
        super().__init__("insufficient_memory", message, **fields)
        self.retryable = retryable
