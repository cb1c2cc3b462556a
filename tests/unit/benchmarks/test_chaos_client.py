"""The client of the chaos benchmark, which resumes an answer that was cut off."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from benchmarks.client.frames import FrameReader, data_of
from benchmarks.client.reading import Answer
from benchmarks.client.requests import ClientRequest
from benchmarks.client.returning import Comebacks, Sending, Watcher, ask_until_answered

PATH = "/v1/completions"
TEXTS = ("The ", "lamp ", "is ", "lit.")
FRAMES = [
    *(
        b"data: "
        + json.dumps({"id": "x", "choices": [{"text": text, "finish_reason": None}]}).encode()
        + b"\n\n"
        for text in TEXTS
    ),
    b"data: "
    + json.dumps({"id": "x", "choices": [{"text": "", "finish_reason": "stop"}]}).encode()
    + b"\n\n",
    b"data: [DONE]\n\n",
]
BY_ID, BY_KEY = True, False


class Server:
    """Breaks off the first connection after 2½ frames, and gives the rest to a client that resumes."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.busy = 0
        self.is_expired = False
        self._has_broken_off = False

    async def post(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(("POST", request.headers["Idempotency-Key"]))
        if self.busy:
            self.busy -= 1
            return web.Response(status=503)
        return await self._stream(request, 0)

    async def get(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(("GET", str(request.rel_url)))
        if self.is_expired:
            return web.json_response({"error": {"code": "stream_expired"}}, status=410)
        return await self._stream(request, int(request.query["from"]))

    async def _stream(self, request: web.Request, first: int) -> web.StreamResponse:
        headers = {"content-type": "text/event-stream", "x-request-id": "answer-1"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        if self._has_broken_off:
            await response.write(b"".join(FRAMES[first:]))
            return response
        self._has_broken_off = True
        await response.write(b"".join(FRAMES[:2]) + FRAMES[2][:10])
        assert request.transport is not None
        request.transport.abort()
        return response


Ask = Callable[..., Awaitable[tuple[Answer, Comebacks, list[str]]]]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def ask(session: aiohttp.ClientSession) -> Ask:
    async def send(url: str, by_id: bool, timeout_s: float = 30.0) -> tuple[Answer, Comebacks, list[str]]:
        back, refusals = Comebacks(), list[str]()
        watcher = Watcher(back, lambda: refusals.append("refused"), lambda: refusals.append("busy"))
        sending = Sending(ClientRequest(0, "", PATH, {"stream": True}), "key-1", by_id)
        return (
            await ask_until_answered(session, url, sending, timeout_s, watcher),
            back,
            refusals,
        )

    return send


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, str]]:
    server, app = Server(), web.Application()
    app.router.add_post(PATH, server.post)
    app.router.add_get("/v1/streams/{id}", server.get)
    async with TestServer(app) as running:
        yield server, str(running.make_url("")).rstrip("/")


async def test_chaos_client_after_a_cut_off_stream_resumes_by_id_at_the_first_missing_frame(server, ask):
    answer, back, _ = await ask(server[1], BY_ID)
    assert (answer.text, answer.finished, answer.fault) == ("".join(TEXTS), True, "")
    assert server[0].asked == [("POST", "key-1"), ("GET", "/v1/streams/answer-1?from=2")]
    assert back == Comebacks(cut_off=1, by_id=1, by_key=0)


async def test_chaos_client_repeats_a_cut_off_request_by_its_idempotency_key_without_doubled_text(
    server, ask
):
    answer, back, _ = await ask(server[1], BY_KEY)
    assert (answer.text, answer.finished, answer.fault) == ("".join(TEXTS), True, "")
    assert server[0].asked == [("POST", "key-1"), ("POST", "key-1")]
    assert back == Comebacks(cut_off=1, by_id=0, by_key=1)


async def test_chaos_client_retries_a_busy_server_and_counts_each_refusal(server, ask):
    server[0].busy = 2
    answer, _, refusals = await ask(server[1], BY_KEY)
    assert (answer.text, refusals) == ("".join(TEXTS), ["busy", "busy"])


async def test_chaos_client_retries_an_unreachable_server_until_its_timeout_and_counts_each_refusal(
    ask, free_port
):
    # A port for outgoing connections could be that of the connection itself, which then succeeds.
    answer, _, refusals = await ask(f"http://127.0.0.1:{free_port()}", BY_ID, timeout_s=1.5)
    assert not answer.finished and "no end within 1.5 s" in answer.fault
    assert set(refusals) == {"refused"} and len(refusals) >= 2


async def test_chaos_client_reports_an_answer_that_the_server_has_deleted_as_a_fault(server, ask):
    server[0].is_expired = True
    answer, _, _ = await ask(server[1], BY_ID)
    assert not answer.finished and answer.fault.startswith("410 by its id")


# --- frames ---


def test_frame_reader_returns_whole_server_sent_events_wherever_the_bytes_are_split():
    stream = b'event: ping\ndata: {"a": 1}\n\n: comment\n\ndata: [DONE]\n\ndata: {"cut'
    for size in (1, 2, 7, len(stream)):
        reader = FrameReader("text/event-stream")
        parts = [stream[at : at + size] for at in range(0, len(stream), size)]
        frames = [frame for part in parts for frame in reader.feed(part)]
        assert [data_of(frame) for frame in frames] == [b'{"a": 1}', b"", b""]


def test_frame_reader_returns_each_complete_line_of_ndjson():
    reader = FrameReader("application/x-ndjson")
    assert reader.feed(b'{"a": 1}\n{"b":') == [b'{"a": 1}']
    assert reader.feed(b" 2}\n") == [b'{"b": 2}']
