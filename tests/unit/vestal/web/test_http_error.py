"""The error that all services answer with, and the header `Retry-After` of 503 and 429."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from vestal.web.http_error import STATUSES, TEMPORARY, HttpError

REPO = Path(__file__).resolve().parents[4]
PACKAGES = ("vestal", "host_agent", "mlx_server", "orchestrator")
NAMES = {
    "SERVICE_UNAVAILABLE",
    "TOO_MANY_REQUESTS",
    "HTTP_503_SERVICE_UNAVAILABLE",
    "HTTP_429_TOO_MANY_REQUESTS",
}
AIOHTTP_ERRORS = {"HTTPServiceUnavailable", "HTTPTooManyRequests"}
HTTP_ERRORS = {"HttpError", "GatewayError", "Unavailable"}
STATUS_ARGUMENTS = {"status", "status_code"}


def _calls_with_a_temporary_status(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Yield the calls that make a response or an error with status 503 or 429, each with the name of what is
    called.
    """
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        values = [keyword.value for keyword in call.keywords if keyword.arg in STATUS_ARGUMENTS]
        values += call.args if name.endswith(("Response", "Error", "_response")) else []
        parts = [part for value in values for part in ast.walk(value)]
        has_status = any(
            (isinstance(part, ast.Constant) and part.value in TEMPORARY)
            or getattr(part, "attr", getattr(part, "id", "")) in NAMES
            for part in parts
        )
        if has_status or name in AIOHTTP_ERRORS:
            yield call, name


def test_every_response_with_status_503_or_429_is_made_from_an_http_error():
    """GET /health of a draining gateway was a plain response with status 503, without `Retry-After`."""
    found, wrong = 0, []
    for package in PACKAGES:
        for path in sorted((REPO / package).rglob("*.py")):
            for call, name in _calls_with_a_temporary_status(ast.parse(path.read_text())):
                found += 1
                if name not in HTTP_ERRORS:
                    wrong.append(f"{path.relative_to(REPO)}:{call.lineno}: {name}")
    assert wrong == []
    assert found > 5, "the search finds the places"


def _classes(cls: type[HttpError]) -> Iterator[type[HttpError]]:
    yield cls
    for below in cls.__subclasses__():
        yield from _classes(below)


def _errors() -> Iterator[HttpError]:
    """Yield an error with each shared code and of each service's class, without a time to wait."""
    for module in ("mlx_server.gateway.errors", "host_agent.listener.guard", "orchestrator.api.guard"):
        importlib.import_module(module)
    yield from (HttpError(code, "m") for code in STATUSES)
    yield from (HttpError("x", "m", status=status) for status in (400, 409, 429, 500, 502, 503, 507))
    of_services = (cls for cls in _classes(HttpError) if cls.status and "__init__" not in vars(cls))
    yield from (cls("x", "m") for cls in of_services)


def test_error_with_status_503_or_429_has_retry_after_even_if_no_time_is_given_and_no_other_error_has_it():
    statuses = set()
    for error in _errors():
        assert ("Retry-After" in error.headers()) == (error.status in TEMPORARY), error.code
        statuses.add(error.status)
    assert statuses >= TEMPORARY


@pytest.mark.parametrize(("given_s", "header"), [(None, "5"), (0.0, "1"), (0.2, "1"), (1.1, "2"), (60, "60")])
def test_retry_after_is_in_whole_seconds_of_which_there_is_at_least_one(given_s: float | None, header: str):
    assert HttpError("x", "m", status=503, retry_after_s=given_s).headers()["Retry-After"] == header
