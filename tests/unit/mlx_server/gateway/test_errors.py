"""Failures that the engine reports, as clients get them."""

from __future__ import annotations

import typing

import pytest

from mlx_server.gateway import errors
from mlx_server.gateway.dialects.error_envelopes import envelope_for, error_response
from mlx_server.protocol import ErrorCode, Failed
from vestal.web.http_error import HttpError

STATUS = {
    "model_not_found": 404,
    "model_load_failed": 500,
    "context_exceeded": 400,
    "empty_prompt": 400,
    "not_an_embedding_model": 400,
    "not_a_rerank_model": 400,
    "not_a_chat_model": 400,
    "engine_crashed": 500,
    "internal_error": 500,
    "engine_unavailable": 503,
    "overloaded": 503,
    "invalid_request": 400,
    "not_supported": 400,
    "insufficient_memory": 507,
}


@pytest.mark.parametrize(("retryable", "status"), [(True, 503), (False, 507)])
def test_insufficient_memory_error_has_its_figures_and_says_whether_to_retry(retryable, status):
    figures = {"needs_bytes": 41, "free_bytes": 18}
    error = errors.from_engine(Failed("r", "insufficient_memory", "no room", retryable, figures))
    answer = error_response(error, "/api/chat")
    assert answer.status_code == status
    assert ("retry-after" in answer.headers) is retryable
    assert answer.headers.get("x-should-retry") == (None if retryable else "false")
    for path in ("/api/chat", "/v1/chat/completions", "/v1/messages"):
        body = envelope_for(path).body(error)
        detail = body["error"] if path.startswith("/v1") else body
        assert detail["code"] == "insufficient_memory"
        assert detail["needs_bytes"] == 41


@pytest.mark.parametrize("code", typing.get_args(ErrorCode))
def test_every_error_code_of_the_engine_becomes_an_http_error_with_that_code(code):
    assert code in errors._BY_CODE
    error = errors.from_engine(Failed("r", code, "why"))
    assert (error.code, error.message) == (code, "why")
    assert error.status == STATUS[code]


@pytest.mark.parametrize("status", [400, 405, 408, 409, 410, 415, 422, 499])
def test_error_of_the_client_has_the_type_of_an_invalid_request_in_openais_and_anthropics_envelope(status):
    """A reused idempotency key was a `server_error`, after which a client would have tried again."""
    error = HttpError("some_code", "why", status=status)
    for path in ("/v1/chat/completions", "/v1/messages"):
        assert envelope_for(path).body(error)["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("status", "openai", "anthropic"),
    [
        (401, "authentication_error", "authentication_error"),
        (404, "not_found_error", "not_found_error"),
        (413, "invalid_request_error", "request_too_large"),
        (429, "rate_limit_error", "rate_limit_error"),
        (500, "server_error", "api_error"),
        (503, "service_unavailable_error", "overloaded_error"),
        (507, "server_error", "api_error"),
    ],
)
def test_other_errors_have_the_type_that_openai_and_anthropic_have_for_their_status(
    status, openai, anthropic
):
    error = HttpError("some_code", "why", status=status)
    assert envelope_for("/v1/embeddings").body(error)["error"]["type"] == openai
    assert envelope_for("/v1/messages").body(error)["error"]["type"] == anthropic
