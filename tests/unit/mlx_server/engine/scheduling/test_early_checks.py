"""Early checks: an error that a request would get in any case is reported before its turn."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from mlx_server.engine.errors import EngineError, InsufficientMemory, RequestError
from mlx_server.engine.scheduling.early_checks import EarlyChecks
from mlx_server.engine.scheduling.loads import LoadedAs
from mlx_server.model_store import BrokenModel
from mlx_server.protocol import Accepted, Failed, Generate
from tests.unit.mlx_server.engine.scheduling.fake_backend import CHAT, EMBED, entry

UNMEETABLE = {"$ref": "#"}


class Guard:
    """Refuses prompts over `most_tokens`, as prompts that the machine can never hold."""

    most_tokens = 100

    def check_possible(
        self, entry: Any, op: Generate, prompt_tokens: int, limit_tokens: int, images: Any
    ) -> None:
        if prompt_tokens > self.most_tokens:
            raise InsufficientMemory("It can never fit.", retryable=False)


class Runner:
    """Makes prompts of `tokens` tokens, or fails with `error`."""

    def __init__(self, tokens: int = 7, error: Exception | None = None) -> None:
        self._tokens, self._error = tokens, error

    def check(self, op: Generate) -> Future:
        result: Future[Any] = Future()
        if self._error:
            result.set_exception(self._error)
        else:
            generation = SimpleNamespace(prompt=range(self._tokens), limit_tokens=5)
            result.set_result(SimpleNamespace(generation=generation, pictures=()))
        return result


def answer(op: Generate, runner: Runner | None = None, read: Any = None) -> Accepted | Failed:
    loaded: Any = SimpleNamespace(entry=entry(CHAT), runner=runner) if runner else None
    guard: Any = Guard()
    catalog = lambda: ([entry(CHAT), entry(EMBED)], [BrokenModel("broken:latest", "cut off")])  # noqa: E731
    checks = EarlyChecks(catalog, lambda name: loaded, LoadedAs(catalog, lambda: 0.0), guard, print, read)
    return checks.answer(op)


def check(model: str = CHAT, **more: Any) -> Generate:
    return Generate("a", model, "text", prompt="p", check_only=True, **more)


def code_of(event: Accepted | Failed) -> str:
    return event.code if isinstance(event, Failed) else "accepted"


def test_early_check_of_a_valid_request_reports_its_prompts_length():
    assert answer(check(json_schema={"type": "object"}), Runner(7)) == Accepted("a", 7)


@pytest.mark.parametrize(
    ("op", "runner", "code"),
    [
        (check(), Runner(error=RequestError("context_exceeded", "Too long.")), "context_exceeded"),
        (check(), Runner(error=RequestError("invalid_request", "The template objects.")), "invalid_request"),
        (check(json_schema=UNMEETABLE), Runner(), "invalid_request"),
        (check(), Runner(tokens=101), "insufficient_memory"),
        (check("nobody:latest"), None, "model_not_found"),
        (check("deleted:latest", requested_model="nobody"), None, "model_not_found"),
        (check("deleted:latest", requested_model=EMBED), None, "not_a_chat_model"),
        (check("broken:latest"), None, "model_load_failed"),
        (check(EMBED), None, "not_a_chat_model"),
    ],
)
def test_early_check_fails_with_the_error_that_the_request_would_get(op, runner, code):
    assert code_of(answer(op, runner)) == code


@pytest.mark.parametrize(
    "error",
    [
        EngineError("internal_error", "The template's process died."),
        InsufficientMemory("There is no room now.", retryable=True),
        MemoryError("anything that nobody foresaw"),
    ],
)
def test_early_check_with_a_temporary_failure_leaves_the_request_queued(error):
    assert answer(check(), Runner(error=error)) == Accepted("a")


def test_early_check_accepts_a_request_whose_unloaded_model_cannot_be_read():
    def read(of: Any) -> Any:
        raise OSError(f"{of.name} is cut off")

    assert answer(check(), read=read) == Accepted("a")


def test_early_check_whose_model_is_unloaded_before_its_turn_is_done_without_the_weights(capsys):
    """Such a check was once logged as an internal error, and the request accepted without a check."""
    cancelled: Future[Any] = Future()
    cancelled.cancel()
    runner: Any = SimpleNamespace(check=lambda op: cancelled)
    assert code_of(answer(check("nobody:latest"), runner)) == "model_not_found"
    assert "request_failed" not in capsys.readouterr().err
