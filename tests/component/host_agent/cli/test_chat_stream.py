"""`vestal chat` with a gateway that dies during an answer, and restarts with or without that answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from host_agent.cli.chat.answer import (
    EngineDied,
    Failed,
    Finished,
    GatewayBack,
    GatewayLost,
    Happening,
    Piece,
)
from host_agent.cli.chat.answer_stream import AnswerStream
from host_agent.cli.gateway import GatewayClient
from tests.services.http_servers import serving

WORDS = ["The", " fox", "", " sleeps", "."]
"""The empty one is a keep-alive, which counts as a frame too."""
FRAMES = [json.dumps({"message": {"content": word}, "done": False}).encode() + b"\n" for word in WORDS]
LAST = (
    json.dumps({"message": {"content": ""}, "done": True, "eval_count": 4, "done_reason": "stop"}).encode()
    + b"\n"
)
ID = "1d83ad67"
EXITED = {"component": "mlx_engine", "event": "child_exited", "cause": "killed by SIGKILL"}
KILLED = EXITED | {"seq": 3, "fields": {"pid": 7}}


class FakeGateway(ThreadingHTTPServer):
    """Sends three and a half frames, then closes the connection; `rest` are its answers to later requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.closed = threading.Event()
        self.rest: list[int] = [200]
        self.asked: list[tuple[str, str]] = []
        self.keys: set[str] = set()
        self.refusal: tuple[int, dict[str, Any]] | None = None


class Handler(BaseHTTPRequestHandler):
    server: FakeGateway

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(("POST", self.path))
        self.server.keys.add(self.headers["Idempotency-Key"])
        if self.server.refusal is not None:
            self._answer(*self.server.refusal)
            return
        self._begin(200)
        self.wfile.write(b"".join(FRAMES[:3]) + FRAMES[3][:10])

    def do_DELETE(self) -> None:
        self.server.asked.append(("DELETE", self.path))
        self._answer(200, {})

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/events":
            query = parse_qs(url.query)
            is_new = query.get("instance") == ["a"] and query["since"] == ["0"]
            self.server.closed.wait(0.0 if is_new else 0.2)  # the request for events is a long poll
            self._answer(200, {"instance": "a", "events": [KILLED] if is_new else []})
            return
        self.server.asked.append(("GET", self.path))
        status = self.server.rest.pop(0)
        if status != 200:
            self._answer(status, {"error": {"message": "no"}})
            return
        self._begin(200)
        begin = int(parse_qs(url.query)["from"][0])
        self.wfile.write(b"".join([*FRAMES, LAST][begin:]))

    def _begin(self, status: int) -> None:
        self.send_response(status)
        self.send_header("x-request-id", ID)
        self.end_headers()

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        self._begin(status)
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with serving(FakeGateway()) as server:
        yield server


def begin(gateway: FakeGateway) -> AnswerStream:
    config: Any = SimpleNamespace(mlx=SimpleNamespace(port=gateway.server_port))
    stream = AnswerStream(GatewayClient(config), {"model": "m"})
    stream.start()
    return stream


def until_end(stream: AnswerStream) -> list[Happening]:
    """Return the stream's events up to the end of the answer, without those about the engine."""
    found: list[Happening] = []
    while not found or not isinstance(found[-1], Finished | Failed):
        happening = stream.happenings.get(timeout=60)
        if not isinstance(happening, EngineDied):
            found.append(happening)
    return found


def test_chat_answer_resumes_after_the_last_complete_frame_when_its_gateway_restarts(gateway: FakeGateway):
    gateway.rest = [503, 200]  # the gateway restarts, and is not ready at once
    found = until_end(begin(gateway))
    assert [type(each) for each in found] == [Piece, Piece, GatewayLost, GatewayBack, Piece, Piece, Finished]
    assert "".join(each.text for each in found if isinstance(each, Piece)) == "The fox sleeps."
    assert gateway.asked == [("POST", "/api/chat"), *[("GET", f"/v1/streams/{ID}?from=3")] * 2]


@pytest.mark.parametrize("status", [404, 410])
def test_chat_answer_unknown_to_the_restarted_gateway_is_reported_as_lost(gateway: FakeGateway, status: int):
    gateway.rest = [status]
    last = until_end(begin(gateway))[-1]
    assert isinstance(last, Failed) and "is lost" in last.sentence


def test_chat_request_refused_by_the_gateway_fails_with_the_gateways_error_message(gateway: FakeGateway):
    gateway.refusal = (404, {"error": "model 'm' not found"})
    assert until_end(begin(gateway)) == [Failed("model 'm' not found")]
    assert len(gateway.keys) == 1 and None not in gateway.keys


def test_chat_stream_reports_the_cause_of_death_when_the_engine_dies(gateway: FakeGateway):
    gateway.rest = [503] * 100
    stream = begin(gateway)
    while (happening := stream.happenings.get(timeout=60)) != EngineDied(7, "killed by SIGKILL"):
        assert isinstance(happening, Piece | GatewayLost)
    stream.cancel()


def test_chat_answer_cancelled_in_the_terminal_is_cancelled_in_the_gateway(gateway: FakeGateway):
    gateway.rest = [503] * 100
    stream = begin(gateway)
    while not isinstance(stream.happenings.get(timeout=60), Piece):
        pass  # the engine's death may be reported before the answer has begun
    stream.cancel()
    assert ("DELETE", f"/requests/{ID}") in gateway.asked
