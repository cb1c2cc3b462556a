"""The guard around aiohttp handlers: an exception of a handler becomes a response, or ends the connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from tests.component.vestal.web.services import Response, Service
from vestal.web.aiohttp_adapter import AiohttpGuard
from vestal.web.aiohttp_runner import JsonAppRunner
from vestal.web.guard import Policy
from vestal.web.http_error import HttpError

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[Service]]


class OneError(Exception):
    """An error of the service's own."""


class Guard(AiohttpGuard):
    response_headers = {"X-Always": "there"}

    def __init__(self) -> None:
        self.bugs: list[Exception] = []

    def policy(self) -> Policy:
        return Policy(token=b"", token_hint="", needs_token=lambda address: False, max_body_bytes=100)

    def as_http_error(self, error: Exception) -> HttpError | None:
        if isinstance(error, OneError):
            return HttpError("taken", str(error), status=409, retry_after_s=1.2, owner="x")
        return None

    def on_bug(self, request: web.Request, error: Exception) -> None:
        self.bugs.append(error)


GUARD = pytest.StashKey[Guard]()


@pytest.fixture
async def serve(free_port: Callable[[], int], request: pytest.FixtureRequest) -> AsyncIterator[Serve]:
    """A function that serves one handler at every address."""
    runners: list[JsonAppRunner] = []

    async def start(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Service:
        guard = request.node.stash[GUARD] = Guard()
        app = web.Application(middlewares=[guard.middleware()], client_max_size=100)
        app.router.add_route("*", "/x", handler)
        runner = JsonAppRunner(app, access_log=None)
        runners.append(runner)
        await runner.setup()
        port = free_port()
        await runner.listen("127.0.0.1", port)
        return Service("one", port, "/x", {}, (200, ""))

    yield start
    for runner in runners:
        await runner.cleanup()


async def test_response_to_a_raised_service_error_has_its_status_and_its_fields_and_its_retry_after(
    serve: Serve,
):
    async def handler(request: web.Request) -> web.Response:
        raise OneError("It is taken; ask x.")

    response = await (await serve(handler)).ask()
    assert (response.status, response.headers["retry-after"]) == (409, "2")
    error = {"owner": "x", "code": "taken", "message": "It is taken; ask x."}
    assert json.loads(response.body) == {"error": error}
    assert response.headers["x-always"] == "there"


async def test_handler_that_sets_a_default_header_itself_keeps_its_own_value(serve: Serve):
    async def handler(request: web.Request) -> web.Response:
        return web.Response(headers={"X-Always": "its own"})

    assert (await (await serve(handler)).ask()).headers["x-always"] == "its own"


async def test_handler_that_raises_an_unexpected_error_answers_500_without_details_and_is_logged(
    serve: Serve, request: pytest.FixtureRequest
):
    async def handler(request: web.Request) -> web.Response:
        raise RuntimeError("the secret")

    response = await (await serve(handler)).ask()
    assert (response.status, response.code) == (500, "internal_error")
    assert b"the secret" not in response.body
    assert [str(bug) for bug in request.node.stash[GUARD].bugs] == ["the secret"]


async def test_handler_that_raises_a_redirect_answers_with_the_redirect(serve: Serve):
    async def handler(request: web.Request) -> web.Response:
        raise web.HTTPFound("/y")

    response = await (await serve(handler)).ask("GET", "/x", b"")
    assert (response.status, response.headers["location"]) == (302, "/y")


async def test_handler_that_fails_after_the_response_has_begun_closes_the_connection(serve: Serve):
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        await asyncio.sleep(0)
        raise OneError("Too late.")

    response = await (await serve(handler)).ask()
    assert response.status == 200
    assert b"begun" in response.body
    assert b"Too late" not in response.body and b"HTTP/1.1" not in response.body
    assert not response.body.endswith(b"0\r\n\r\n"), "the client must see that it was cut off"


async def test_client_that_hangs_up_within_its_body_is_not_logged_as_a_bug(
    serve: Serve, request: pytest.FixtureRequest
):
    begun = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        begun.set()
        return web.json_response(await request.json())

    service = await serve(handler)
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(
        b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    )
    async with asyncio.timeout(30):
        await begun.wait()
    writer.close()
    await writer.wait_closed()
    assert (await service.ask()).status == 200
    assert not request.node.stash[GUARD].bugs


async def test_response_parser_of_the_test_helpers_reads_the_error_code_of_both_error_formats():
    head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n\r\n"
    assert Response.parse(head + b'{"error": {"code": "a"}}').code == "a"
    assert Response.parse(head + b'{"error": "sentence", "code": "b"}').code == "b"


async def test_handler_that_raises_a_connection_error_to_its_backend_is_logged_as_a_bug(
    serve: Serve, request: pytest.FixtureRequest
):
    async def handler(request: web.Request) -> web.Response:
        raise ConnectionRefusedError("no backend")

    assert (await (await serve(handler)).ask()).code == "internal_error"
    assert len(request.node.stash[GUARD].bugs) == 1
