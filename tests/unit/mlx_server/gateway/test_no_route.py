"""Requests that no route takes."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.exceptions import HTTPException

from mlx_server.gateway.app import _no_route
from mlx_server.gateway.in_flight import routes as in_flight
from mlx_server.gateway.kept_answers import routes as kept_answers


async def _answer(method: str, path: str) -> tuple[int, str | None]:
    """Return the status and the header Allow of the answer."""
    nothing: Any = None
    app = FastAPI()
    app.include_router(kept_answers.router(nothing))
    app.include_router(in_flight.router(nothing))
    app.add_exception_handler(HTTPException, _no_route)
    starts: list[Any] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            starts.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": []}
    scope |= {"query_string": b"", "root_path": "", "http_version": "1.1", "scheme": "http"}
    scope |= {"server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2)}
    await app(scope, receive, send)
    allow = dict(starts[0]["headers"]).get(b"allow")
    return starts[0]["status"], allow and allow.decode()


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v1/streams/x", "GET, HEAD"),
        ("POST", "/requests", "GET, HEAD"),
        ("GET", "/requests/x", "DELETE"),
    ],
)
async def test_method_that_a_path_does_not_take_is_refused_with_the_methods_of_all_its_routes(
    method, path, allow
):
    """Only those of the first route with this path were named (RFC 9110, section 15.5.6)."""
    assert await _answer(method, path) == (405, allow)


async def test_path_that_no_route_has_is_not_found():
    assert (await _answer("GET", "/nothing"))[0] == 404
