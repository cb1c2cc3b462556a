"""Write an error in the form that the clients of each dialect read. The path of a request decides which
dialect that is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from mlx_server.gateway.errors import InsufficientStorage
from mlx_server.gateway.json_text import JsonResponse
from vestal.web.http_error import HttpError


@dataclass(frozen=True)
class ErrorEnvelope:
    """One dialect's form of an error: its name and JSON schema in the API document, and a function that
    returns the body for an error.
    """

    name: str
    schema: dict[str, Any]
    body: Callable[[HttpError], dict[str, Any]]


def _strings(*names: str) -> dict[str, Any]:
    return {name: {"type": "string"} for name in names}


def ollama_body(error: HttpError) -> dict[str, Any]:
    """Return the error for Ollama's clients, which read only the string `error`. The other fields are for
    programs that know this server.
    """
    return {**error.fields, "error": error.message, "code": error.code}


OLLAMA = ErrorEnvelope(
    "OllamaError",
    {"type": "object", "required": ["error", "code"], "properties": _strings("error", "code")},
    ollama_body,
)

_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}
"""The types of OpenAI's errors. Other statuses below 500 are the client's faults."""


def _error_type(error: HttpError, types: Mapping[int, str], server_fault: str) -> str:
    return types.get(error.status, "invalid_request_error" if error.status < 500 else server_fault)


def openai_body(error: HttpError) -> dict[str, Any]:
    """Return the error for OpenAI's clients, which read the name of the wrong field from `param`."""
    error_type = _error_type(error, _OPENAI_TYPES, "server_error")
    detail = {"message": error.message, "type": error_type, "code": error.code}
    return {"error": {"param": error.fields.get("field"), **error.fields, **detail}}


OPENAI = ErrorEnvelope(
    "OpenAIError",
    {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": _strings("message", "type", "code"),
            }
        },
    },
    openai_body,
)

_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
"""The types of Anthropic's errors. Other statuses below 500 are the client's faults."""


def anthropic_body(error: HttpError) -> dict[str, Any]:
    """Return the error in the form that Anthropic's clients read."""
    error_type = _error_type(error, _ANTHROPIC_TYPES, "api_error")
    detail = {"type": error_type, "message": error.message, "code": error.code}
    return {"type": "error", "error": {**error.fields, **detail}}


ANTHROPIC = ErrorEnvelope(
    "AnthropicError",
    {
        "type": "object",
        "required": ["type", "error"],
        "properties": {
            "type": {"const": "error"},
            "error": {
                "type": "object",
                "required": ["type", "message", "code"],
                "properties": _strings("message", "type", "code"),
            },
        },
    },
    anthropic_body,
)

ENVELOPES = (OLLAMA, OPENAI, ANTHROPIC)
_BY_PATH = {
    "/v1/messages": ANTHROPIC,
    "/v1": OPENAI,
    "/tokenize": OPENAI,
    "/detokenize": OPENAI,
    "/apply-template": OPENAI,
    "/rerank": OPENAI,
    "/reranking": OPENAI,
    "/v2": OPENAI,
}
"""The envelope of each path and of the paths below it. The longest matching path counts; any other path has
Ollama's envelope."""


def envelope_for(path: str) -> ErrorEnvelope:
    """Return the envelope for errors on this path."""
    while path:
        if path in _BY_PATH:
            return _BY_PATH[path]
        path = path.rpartition("/")[0]
    return OLLAMA


def request_id_headers(request_id: str) -> Mapping[str, str]:
    """Return the headers that tell a client the id of its request. Anthropic's clients read `request-id`."""
    return {"x-request-id": request_id, "request-id": request_id}


def error_response(error: HttpError, path: str, request_id: str | None = None) -> Response:
    """Return the response, with status, headers and JSON body, to a request that fails with `error`. The
    request's `path` decides which dialect's form of an error the body has. `request_id`, unless it is None,
    is sent in headers.
    """
    headers = error.headers()
    if request_id is not None:
        headers |= request_id_headers(request_id)
    if error.status == InsufficientStorage.status:
        headers["x-should-retry"] = "false"  # OpenAI's and Anthropic's clients obey this header
    return JsonResponse(envelope_for(path).body(error), error.status, headers)
