"""An error in the work for one request becomes an error of that request, and is logged once."""

from __future__ import annotations

import json

import pytest

from mlx_server.engine.errors import EngineError, RequestError
from mlx_server.engine.request_fence import confined


class Panic(BaseException):
    """A panic in Rust reaches Python as a BaseException that is not an Exception."""


@pytest.mark.parametrize(
    "error", [KeyError("function"), RecursionError("deep"), MemoryError(), Panic("index")]
)
def test_unexpected_error_inside_a_request_fence_fails_that_request_and_is_logged_with_its_traceback(
    error, capsys
):
    with pytest.raises(EngineError) as caught, confined("r1", "making its prompt"):
        raise error
    failed = caught.value.failed("r1")
    assert (failed.code, failed.retryable) == ("internal_error", False)
    assert "failed at making its prompt" in failed.message
    (line,) = capsys.readouterr().err.splitlines()
    logged = json.loads(line)
    assert (logged["event"], logged["id"], logged["work"]) == ("request_failed", "r1", "making its prompt")
    assert type(error).__name__ in logged["cause"]
    assert "test_request_fence.py" in logged["traceback"]


def test_engine_error_in_the_work_for_a_request_passes_the_request_fence_without_being_logged(capsys):
    refusal = RequestError("invalid_request", "No.")
    with pytest.raises(RequestError) as caught, confined("r1", "making its prompt"):
        raise refusal
    assert caught.value is refusal
    assert capsys.readouterr().err == ""


def test_error_that_passes_through_two_nested_request_fences_is_logged_only_once(capsys):
    with pytest.raises(EngineError), confined("r1", "outer work"), confined("r1", "inner work"):
        raise ValueError("x")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_request_fence_lets_system_exit_pass():
    with pytest.raises(SystemExit), confined("r1", "anything"):
        raise SystemExit
