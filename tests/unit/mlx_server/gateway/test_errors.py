"""Failures that the engine reports, as clients get them."""

from __future__ import annotations

import typing

import pytest

from mlx_server.gateway import errors
from mlx_server.gateway.dialects.error_envelopes import envelope_for, error_response
from mlx_server.protocol import ErrorCode, Failed

STATUS = {"invalid_request": 400, "model_not_found": 404, "internal_error": 500, "overloaded": 503}


@pytest.mark.parametrize(("retryable", "status"), [(True, 503), (False, 507)])
def test_errors_insufficient_memory_has_its_figures_and_says_whether_to_retry(retryable, status):
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
def test_errors_every_code_of_the_engine_has_a_status_of_its_own(code):
    assert code in errors._BY_CODE
    error = errors.from_engine(Failed("r", code, "why"))
    assert (error.code, error.message) == (code, "why")
    assert error.status == STATUS.get(code, error.status)
