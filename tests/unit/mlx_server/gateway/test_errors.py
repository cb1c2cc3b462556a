"""Failures that the engine reports, as clients get them."""

from __future__ import annotations

import typing

import pytest

from mlx_server.gateway import errors
from mlx_server.gateway.dialects.error_envelopes import envelope_for, error_response
from mlx_server.protocol import ErrorCode, Failed

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
