"""The errors that the gateway answers clients with.

    HttpError                    status
    └── GatewayError
        ├── BadRequest           400   invalid_json, invalid_request, not_supported, empty_prompt,
        │                              context_exceeded, not_an_embedding_model, not_a_chat_model,
        │                              not_a_rerank_model, previous_response_not_found,
        │                              websocket_connection_limit_reached
        ├── Forbidden            403   gated_repository
        ├── NotFound             404   model_not_found, revision_not_found, response_not_found, item_not_found
        ├── Conflict             409   request_passed_on
        ├── TooLarge             413   too_large
        ├── ServerFault          500   engine_crashed, model_load_failed, internal_error
        ├── RequestCancelled     499   request_cancelled
        ├── Unavailable          503   overloaded, engine_unavailable, draining; insufficient_memory if the
        │                              memory may become free later   (with Retry-After)
        └── InsufficientStorage  507   disk_full; insufficient_memory if the memory can never suffice

`code` is stable. `message` is one sentence that names the cause and, if there is one, the remedy. `fields`
holds the numbers and names in the message, for programs. Each dialect writes errors in a form of its own, see
`dialects.error_envelopes`. The guard (`vestal.web.guard`), which decides whether a request is admitted, and
the application itself raise HttpError with the codes that all services share; these are listed in
`vestal.web`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlx_server import protocol
from mlx_server.model_store.errors import ModelStoreError
from vestal.web.http_error import HttpError


class GatewayError(HttpError):
    status = 500


class BadRequest(GatewayError):
    status = 400


class Forbidden(GatewayError):
    status = 403


class NotFound(GatewayError):
    status = 404


class TooLarge(GatewayError):
    status = 413


class ServerFault(GatewayError):
    status = 500


class Unavailable(GatewayError):
    status = 503


def out_of_resources(error: OSError) -> Unavailable:
    """Return the 503 error for a request that failed because the gateway has run out of file descriptors or
    memory.
    """
    message = f"The gateway could not open what this request needs ({error.strerror}); try again."
    return Unavailable("overloaded", message)


class Conflict(GatewayError):
    status = 409


class RequestCancelled(GatewayError):
    """A request was cancelled by somebody other than its client. Status 499 was chosen because client
    libraries do not repeat a request after it, as they do after 408, 409, 429 and statuses from 500 on.
    """

    status = 499

    def __init__(self) -> None:
        super().__init__(
            "request_cancelled", "The request was cancelled at the server, by DELETE /requests/ID."
        )


class InsufficientStorage(GatewayError):
    """A request failed for lack of memory or disk space, and would fail again if it were repeated. A header
    of the response asks clients not to retry.
    """

    status = 507


MAX_QUOTED_LENGTH, MAX_LISTED = 80, 20


def quoted(text: str) -> str:
    """Return a client's text as messages show it: in quotes, and shortened if it is long."""
    return repr(text if len(text) <= MAX_QUOTED_LENGTH else f"{text[: MAX_QUOTED_LENGTH - 1]}…")


def listed(names: Sequence[str]) -> str:
    """Return `names` as one text for a message, separated by commas: the first MAX_LISTED names and how many
    more there are, or `none` if there are none.
    """
    shown = [name if len(name) <= MAX_QUOTED_LENGTH else quoted(name) for name in names[:MAX_LISTED]]
    more = [f"and {len(names) - MAX_LISTED} more"] if len(names) > MAX_LISTED else []
    return ", ".join([*shown, *more]) or "none"


_BY_CODE: dict[str, type[GatewayError]] = {
    "model_not_found": NotFound,
    "revision_not_found": NotFound,
    "gated_repository": Forbidden,
    "model_load_failed": ServerFault,
    "context_exceeded": BadRequest,
    "empty_prompt": BadRequest,
    "not_an_embedding_model": BadRequest,
    "not_a_chat_model": BadRequest,
    "not_a_rerank_model": BadRequest,
    "invalid_request": BadRequest,
    "not_supported": BadRequest,
    "engine_crashed": ServerFault,
    "internal_error": ServerFault,
    "engine_unavailable": Unavailable,
    "overloaded": Unavailable,
    "insufficient_memory": InsufficientStorage,
    "disk_full": InsufficientStorage,
}


def from_code(code: str, message: str, **fields: Any) -> GatewayError:
    """Return an error of the class that belongs to `code`, such as NotFound for `model_not_found`. An unknown
    code becomes a ServerFault. `fields` are the error's additional fields for programs.
    """
    return _BY_CODE.get(code, ServerFault)(code, message, **fields)


_MODEL_STORE_REFUSES = frozenset(
    (
        *("name_taken", "preset_too_large", "not_a_model", "not_an_adapter", "conversion_failed"),
        *("invalid_digest", "blob_not_found", "checksum_mismatch"),
    )
)
"""The codes of a ModelStoreError that are the client's fault."""


def from_model_store(error: ModelStoreError) -> GatewayError:
    """Return the gateway error that reports an error of the model store to a client."""
    message = f"{error.message} {error.remedy}"
    return (
        BadRequest(error.code, message)
        if error.code in _MODEL_STORE_REFUSES
        else from_code(error.code, message)
    )


def from_failure(code: str, message: str, retry_after_s: float | None) -> GatewayError:
    """Return the error for a request that the gateway's request table has failed or refused: Unavailable if
    the client should try again after `retry_after_s` seconds. If `retry_after_s` is None, return the error of
    the class that belongs to `code`.
    """
    return (
        from_code(code, message)
        if retry_after_s is None
        else Unavailable(code, message, retry_after_s=retry_after_s)
    )


def from_engine(failed: protocol.Failed) -> GatewayError:
    """Return the error for a failure that the engine reports. A lack of memory that may end becomes
    Unavailable instead of InsufficientStorage.
    """
    taken = {"code", "message", "status", "retry_after_s", "headers"}
    fields = {k: v for k, v in failed.fields.items() if k not in taken}
    if failed.code == "insufficient_memory" and failed.retryable:
        return Unavailable(failed.code, failed.message, **fields)
    return from_code(failed.code, failed.message, **fields)
