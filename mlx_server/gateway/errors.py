"""Every refusal and failure that a client can be told, and how each dialect words it.

    GatewayError                 status
    ├── BadRequest               400   invalid_json, invalid_request, not_supported, empty_prompt,
    │                                  context_exceeded, not_an_embedding_model, not_a_chat_model
    ├── Unauthorized             401   missing_api_key
    ├── Forbidden                403   foreign_origin, foreign_host
    ├── NotFound                 404   model_not_found, unknown_route
    ├── MethodNotAllowed         405   method_not_allowed
    ├── TooLarge                 413   body_too_large
    ├── ServerFault              500   engine_crashed, model_load_failed, internal_error
    ├── Unavailable              503   overloaded, engine_unavailable, draining, insufficient_memory where
    │                                  it may fit later   (with Retry-After)
    └── InsufficientStorage      507   insufficient_memory: it can never fit here

`code` is stable, `message` one sentence that names the culprit and, where there is one, the remedy. `fields`
are the message's figures for programs.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from starlette.responses import JSONResponse, Response

from mlx_server import protocol

RETRY_AFTER_S = 5


class GatewayError(Exception):
    status: ClassVar[int] = 500
    openai_type: ClassVar[str] = "server_error"

    def __init__(self, code: str, message: str, *, retry_after_s: float | None = None, **fields: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s
        self.fields = fields


class BadRequest(GatewayError):
    status = 400
    openai_type = "invalid_request_error"


class Unauthorized(GatewayError):
    status = 401
    openai_type = "authentication_error"


class Forbidden(GatewayError):
    status = 403
    openai_type = "permission_error"


class NotFound(GatewayError):
    status = 404
    openai_type = "not_found_error"


class MethodNotAllowed(GatewayError):
    status = 405
    openai_type = "invalid_request_error"


class TooLarge(GatewayError):
    status = 413
    openai_type = "invalid_request_error"


class ServerFault(GatewayError):
    status = 500


class Unavailable(GatewayError):
    status = 503
    openai_type = "service_unavailable_error"

    def __init__(
        self, code: str, message: str, *, retry_after_s: float | None = RETRY_AFTER_S, **fields: Any
    ) -> None:
        super().__init__(code, message, retry_after_s=retry_after_s, **fields)


class InsufficientStorage(GatewayError):
    """Sending it again is in vain, and clients that repeat any 5xx are told so."""

    status = 507


_BY_CODE: dict[str, type[GatewayError]] = {
    "model_not_found": NotFound,
    "model_load_failed": ServerFault,
    "context_exceeded": BadRequest,
    "empty_prompt": BadRequest,
    "not_an_embedding_model": BadRequest,
    "not_a_chat_model": BadRequest,
    "invalid_request": BadRequest,
    "engine_crashed": ServerFault,
    "engine_unavailable": Unavailable,
    "overloaded": Unavailable,
    "insufficient_memory": InsufficientStorage,
}


def from_code(code: str, message: str, **fields: Any) -> GatewayError:
    """The error for one of the engine's or the request table's codes."""
    return _BY_CODE.get(code, ServerFault)(code, message, **fields)


def from_engine(failed: protocol.Failed) -> GatewayError:
    """The engine's refusal, for the client."""
    taken = {"code", "message", "retry_after_s"}
    fields = {k: v for k, v in failed.fields.items() if k not in taken}
    if failed.code == "insufficient_memory" and failed.retryable:
        return Unavailable(failed.code, failed.message, **fields)
    return from_code(failed.code, failed.message, **fields)


# --- wording ---

_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    503: "overloaded_error",
}


def is_openai(path: str) -> bool:
    """Which dialect's envelope an error on this path is put in."""
    return path == "/v1" or path.startswith("/v1/")


def is_anthropic(path: str) -> bool:
    return path == "/v1/messages" or path.startswith("/v1/messages/")


def ollama_body(error: GatewayError) -> dict[str, Any]:
    """Ollama's clients read `error` as a string; the rest is for programs."""
    return {**error.fields, "error": error.message, "code": error.code}


def openai_body(error: GatewayError) -> dict[str, Any]:
    detail = {"message": error.message, "type": error.openai_type, "param": None, "code": error.code}
    return {"error": {**error.fields, **detail}}


def anthropic_body(error: GatewayError) -> dict[str, Any]:
    kind = _ANTHROPIC_TYPES.get(error.status, "api_error")
    detail = {"type": kind, "message": error.message, "code": error.code}
    return {"type": "error", "error": {**error.fields, **detail}}


def body(error: GatewayError, path: str) -> dict[str, Any]:
    """The envelope that the path's dialect has for errors."""
    if is_anthropic(path):
        return anthropic_body(error)
    return openai_body(error) if is_openai(path) else ollama_body(error)


def response(error: GatewayError, path: str) -> Response:
    """The whole answer, `Retry-After` included."""
    headers = {} if error.retry_after_s is None else {"Retry-After": str(max(1, round(error.retry_after_s)))}
    if error.status == InsufficientStorage.status:
        headers["x-should-retry"] = "false"  # OpenAI's and Anthropic's clients go by it
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body(error, path), status_code=error.status, headers=headers)


def line(error: GatewayError) -> str:
    """An error in the middle of an Ollama stream."""
    return json.dumps(ollama_body(error), ensure_ascii=False) + "\n"
