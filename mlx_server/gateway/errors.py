"""Every refusal and failure that a client can meet, and how each dialect words it.

    HttpError                    status
    └── GatewayError
        ├── BadRequest           400   invalid_json, invalid_request, not_supported, empty_prompt,
        │                              context_exceeded, not_an_embedding_model, not_a_chat_model
        ├── NotFound             404   model_not_found
        ├── TooLarge             413   too_large
        ├── ServerFault          500   engine_crashed, model_load_failed
        ├── Unavailable          503   overloaded, engine_unavailable, draining, insufficient_memory where
        │                              it may fit later   (with Retry-After)
        └── InsufficientStorage  507   insufficient_memory: it can never fit here

`code` is stable, `message` one sentence that names the culprit and, where there is one, the remedy. `fields`
are the message's figures for programs. The guard and the application itself raise HttpError with the codes
that all services share; these are listed in `vestal.web`.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse, Response

from mlx_server import protocol
from vestal.web.http_error import HttpError

RETRY_AFTER_S = 5


class GatewayError(HttpError):
    status = 500


class BadRequest(GatewayError):
    status = 400


class NotFound(GatewayError):
    status = 404


class TooLarge(GatewayError):
    status = 413


class ServerFault(GatewayError):
    status = 500


class Unavailable(GatewayError):
    status = 503

    def __init__(
        self, code: str, message: str, *, retry_after_s: float | None = RETRY_AFTER_S, **fields: Any
    ) -> None:
        super().__init__(code, message, retry_after_s=retry_after_s, **fields)


class InsufficientStorage(GatewayError):
    """A request that cannot succeed later either. Clients that repeat any 5xx are asked not to."""

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
    """Return the error for a code of the engine or of the request table."""
    return _BY_CODE.get(code, ServerFault)(code, message, **fields)


def from_engine(failed: protocol.Failed) -> GatewayError:
    """Return the error for a failure that the engine reports."""
    taken = {"code", "message", "status", "retry_after_s", "headers"}
    fields = {k: v for k, v in failed.fields.items() if k not in taken}
    if failed.code == "insufficient_memory" and failed.retryable:
        return Unavailable(failed.code, failed.message, **fields)
    return from_code(failed.code, failed.message, **fields)


# --- wording ---

_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    503: "service_unavailable_error",
}
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
    """Return whether errors on this path have OpenAI's envelope, unless `is_anthropic` is true as well."""
    return path == "/v1" or path.startswith("/v1/")


def is_anthropic(path: str) -> bool:
    """Return whether errors on this path have Anthropic's envelope."""
    return path == "/v1/messages" or path.startswith("/v1/messages/")


def ollama_body(error: HttpError) -> dict[str, Any]:
    """Return the error as Ollama's clients read it, `error` being a string. The rest is for programs."""
    return {**error.fields, "error": error.message, "code": error.code}


def openai_body(error: HttpError) -> dict[str, Any]:
    error_type = _OPENAI_TYPES.get(error.status, "server_error")
    detail = {"message": error.message, "type": error_type, "param": None, "code": error.code}
    return {"error": {**error.fields, **detail}}


def anthropic_body(error: HttpError) -> dict[str, Any]:
    error_type = _ANTHROPIC_TYPES.get(error.status, "api_error")
    detail = {"type": error_type, "message": error.message, "code": error.code}
    return {"type": "error", "error": {**error.fields, **detail}}


def body(error: HttpError, path: str) -> dict[str, Any]:
    """Return the error in the envelope of the path's dialect."""
    if is_anthropic(path):
        return anthropic_body(error)
    return openai_body(error) if is_openai(path) else ollama_body(error)


def response(error: HttpError, path: str) -> Response:
    """Return the whole response, with its headers."""
    headers = error.headers()
    if error.status == InsufficientStorage.status:
        headers["x-should-retry"] = "false"  # OpenAI's and Anthropic's clients go by it
    return JSONResponse(body(error, path), status_code=error.status, headers=headers)


def line(error: HttpError) -> str:
    """Return the error as a line in the middle of an Ollama stream."""
    return json.dumps(ollama_body(error), ensure_ascii=False) + "\n"
