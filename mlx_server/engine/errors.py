"""Why the engine refuses or fails a request. One tree; each becomes a `Failed` event.

EngineError
├─ RequestError             the request cannot be served, now or later: context_exceeded, empty_prompt,
│                           not_an_embedding_model, not_a_chat_model, invalid_request, model_not_found
├─ LoadError                the model cannot be loaded: model_load_failed
└─ InsufficientMemory       it does not fit: insufficient_memory, retryable where it may fit later
"""

from __future__ import annotations

from typing import Any

from mlx_server.protocol import ErrorCode, Failed


class EngineError(Exception):
    """`code` is one of the protocol's; `fields` holds figures for a program."""

    retryable = False

    def __init__(self, code: ErrorCode, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.code = code
        self.fields = fields

    def failed(self, request: str) -> Failed:
        """The event that tells the gateway."""
        return Failed(request, self.code, str(self), self.retryable, self.fields)


class RequestError(EngineError):
    """The fault is in the request."""


class LoadError(EngineError):
    """The fault is in the model's files."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__("model_load_failed", f"Model {model} could not be loaded: {reason}")


class InsufficientMemory(EngineError):
    """A model or a request does not fit; `fields` has the figures, in bytes."""

    def __init__(self, message: str, *, retryable: bool, **fields: Any) -> None:
        super().__init__("insufficient_memory", message, **fields)
        self.retryable = retryable
