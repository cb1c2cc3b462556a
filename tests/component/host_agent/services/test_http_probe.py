"""How the agent reads a service's HTTP answer, and the absence of one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from aiohttp import web

from host_agent.blocking_http import json_object
from host_agent.services import http_probe
from host_agent.services.http_probe import NoAnswer

WITHIN_S = 60.0
MODELS = {"models": [{"name": f"model-{number}:latest"} for number in range(5000)]}


async def in_pieces(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    raw = json.dumps(MODELS).encode()
    for start in range(0, len(raw), 50_000):
        await response.write(raw[start : start + 50_000])
        await asyncio.sleep(0.01)
    return response


async def without_json(request: web.Request) -> web.StreamResponse:
    return web.Response(text="starting", status=503)


async def nested_deeply(request: web.Request) -> web.StreamResponse:
    return web.Response(text="[" * 200_000, content_type="application/json")


async def redirected(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("/in-pieces")


async def never(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.fixture
async def url(free_port: Callable[[], int]) -> AsyncIterator[str]:
    app = web.Application()
    handlers = {"/in-pieces": in_pieces, "/text": without_json, "/redirect": redirected, "/never": never}
    handlers["/nested-deeply"] = nested_deeply
    for path, handler in handlers.items():
        app.router.add_get(path, handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}"
    await runner.cleanup()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def test_http_probe_reads_a_body_that_arrives_in_pieces(session: aiohttp.ClientSession, url: str):
    """Earlier, only the first piece was read: a long list of models was invalid JSON, and Ollama was reported
    as broken.
    """
    assert (await http_probe.get(session, f"{url}/in-pieces", WITHIN_S)).fields == MODELS


async def test_http_probe_of_a_body_that_is_not_json_still_returns_the_status(
    session: aiohttp.ClientSession, url: str
):
    reply = await http_probe.get(session, f"{url}/text", WITHIN_S)
    assert (reply.status, reply.body, reply.fields) == (503, None, {})


async def test_http_probe_of_json_that_is_nested_too_deeply_still_returns_the_status(
    session: aiohttp.ClientSession, url: str
):
    """Earlier, it raised RecursionError, which no caller expects."""
    reply = await http_probe.get(session, f"{url}/nested-deeply", WITHIN_S)
    assert (reply.status, reply.body, reply.fields) == (200, None, {})


def test_json_object_of_a_body_that_is_nested_too_deeply_raises_value_error():
    with pytest.raises(ValueError, match="nested too deeply"):
        json_object(b"[" * 200_000)


async def test_http_probe_does_not_follow_a_redirect(session: aiohttp.ClientSession, url: str):
    assert (await http_probe.get(session, f"{url}/redirect", WITHIN_S)).status == 302


async def test_http_probe_without_an_answer_raises_at_the_deadline(session: aiohttp.ClientSession, url: str):
    with pytest.raises(NoAnswer, match=r"no answer within 0\.1 s"):
        await http_probe.get(session, f"{url}/never", timeout_s=0.1)


async def test_http_probe_of_a_free_port_says_that_nothing_listens(
    session: aiohttp.ClientSession, free_port: Callable[[], int]
):
    with pytest.raises(NoAnswer, match="nothing listens there"):
        await http_probe.get(session, f"http://127.0.0.1:{free_port()}/health", WITHIN_S)
