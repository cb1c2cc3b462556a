"""Decide which error it is if a backend refuses a request or fails at it: the backend is busy, the request is
wrong or too large for its machine, the request kills the engine, or the backend has failed. Pure.

The HTTP status decides. In the middle of a streamed answer, where status 200 was sent long before, the `code`
in the error of Vestal's gateway stands for it.
"""

from __future__ import annotations

from typing import Any

from orchestrator.errors import (
    BackendBusy,
    BackendError,
    BackendFailed,
    EngineCrashed,
    MachineTooSmall,
    RequestRejected,
)

BUSY = (429, 503)
TOO_LITTLE_STORAGE = 507
NOT_THE_REQUESTS_FAULT = (404, 408)  # a model that the backend lists, and a body that came too slowly
MAX_RETRY_AFTER_S = 3600.0
STATUS_OF_CODE = {
    **dict.fromkeys(("invalid_json", "invalid_request", "not_supported", "empty_prompt"), 400),
    **dict.fromkeys(("context_exceeded", "not_a_chat_model", "not_an_embedding_model"), 400),
    **dict.fromkeys(("not_a_rerank_model",), 400),
    "gated_repository": 403,
    "model_not_found": 404,
    "too_large": 413,
    "too_many_requests": 429,
    "request_cancelled": 499,
    **dict.fromkeys(("overloaded", "draining", "engine_unavailable"), 503),
    "disk_full": TOO_LITTLE_STORAGE,
}
"""The HTTP status that Vestal's gateway sends with each `code`. `insufficient_memory` has two, see
`_status_of`; any other code is sent with 500.
"""


def reply_error(backend: str, status: int, body: Any, retry_after: str | None = None) -> BackendError:
    """Return the error for a reply that is not the expected one. `body` is its JSON (None: it has none), and
    `retry_after` its header `Retry-After`.
    """
    error = _error_in(body)
    message = f"{backend} answers {status}: {error.get('message') or 'no reason given'}"
    return _error(message, status, error, _seconds(retry_after))


def stream_error(backend: str, line: dict[str, Any]) -> BackendError:
    """Return the error that a line in the middle of a streamed answer reports."""
    error = _error_in(line)
    message = f"{backend} failed in the middle of its answer: {error.get('message') or line['error']}"
    return _error(message[:500], _status_of(error), error, 0.0)


def _error(message: str, status: int, error: dict[str, Any], retry_after_s: float) -> BackendError:
    if error.get("code") == "engine_crashed":
        return EngineCrashed(message)
    if status in BUSY:
        return BackendBusy(message, retry_after_s)
    if status == TOO_LITTLE_STORAGE:
        return MachineTooSmall(message)
    if 400 <= status < 500 and status not in NOT_THE_REQUESTS_FAULT:
        return RequestRejected(message)
    return BackendFailed(message)


def _error_in(body: Any) -> dict[str, Any]:
    """Return the error in the JSON body of a reply, with its `message` and, if it has one, its `code`; empty
    if the body is no object.

    In OpenAI's form, the field `error` is an object with these fields. In Ollama's form, `error` is the
    message, and the other fields are in the body itself.
    """
    if not isinstance(body, dict):
        return {}
    error = body.get("error")
    return error if isinstance(error, dict) else {**body, "message": error}


def _status_of(error: dict[str, Any]) -> int:
    """Return the HTTP status that belongs to an error's `code`: a word or, from some servers, the status
    itself. Return 500 if the code is missing or unknown. For the code `insufficient_memory`, return
    TOO_LITTLE_STORAGE if the error's numbers say that the request can never fit, else 503.
    """
    code = error.get("code")
    if code == "insufficient_memory":
        needs, limit = error.get("needs_bytes"), error.get("limit_bytes")
        can_never_fit = isinstance(needs, int) and isinstance(limit, int) and needs > limit
        return TOO_LITTLE_STORAGE if can_never_fit else 503
    if isinstance(code, int):
        return code
    return STATUS_OF_CODE.get(code, 500) if isinstance(code, str) else 500


def _seconds(retry_after: str | None) -> float:
    """Return the seconds in a `Retry-After` header, at most MAX_RETRY_AFTER_S; 0 if there are none."""
    try:
        return min(max(0.0, float(retry_after or 0.0)), MAX_RETRY_AFTER_S)
    except ValueError:  # a date, or nonsense
        return 0.0
