"""A gateway hands over to its successor under load: no stream breaks off, and no connection is refused."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from typing import Any

import httpx
import pytest

from tests.services.gateways import Gateways, serving
from tests.services.streams import ROUTES, Stream, frames_of, messages, text_of_frames


@pytest.fixture
def gateways(make_gateway: Callable[..., Any], request: pytest.FixtureRequest) -> Iterator[Gateways]:
    """A gateway that serves, with settings of the test's own."""
    settings = getattr(request, "param", {"VESTAL_MLX__MAX_RUNNING": "16"})
    with serving(make_gateway(**settings)) as gateways:
        yield gateways


REQUEST = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Prober:
    """Makes a new connection every 20 ms, and counts those that are refused or not answered."""

    def __init__(self, port: int) -> None:
        self.made = 0
        self.failed: list[str] = []
        self._ends = threading.Event()
        self._port = port
        self._thread = threading.Thread(target=self._probe)
        self._thread.start()

    def _probe(self) -> None:
        while not self._ends.wait(0.02):
            self.made += 1
            try:
                with socket.create_connection(("127.0.0.1", self._port), 60) as connection:
                    connection.sendall(REQUEST)
                    answer = connection.recv(100)
                    if not answer.startswith(b"HTTP/1.1 200"):
                        self.failed.append(repr(answer))
            except OSError as error:
                self.failed.append(repr(error))

    def end(self) -> None:
        self._ends.set()
        self._thread.join()


def test_gateway_handed_over_three_times_loses_none_of_eight_streams_and_refuses_no_connection(
    gateways, text_of
):
    """Earlier, an upgrade broke off every stream and refused connections for 29 s."""
    gateway = gateways.gateway
    prompt = "upgraded tokens=5000 step_ms=50"
    paths = [*ROUTES, "/v1/chat/completions", "/api/chat"]
    streams = [Stream(gateway.http, path, ROUTES[path](prompt, stream=True)) for path in paths]
    prober = Prober(gateway.port)
    for _ in range(3):
        for stream in streams:
            stream.until(len(stream.frames) + 10 if stream.content else 10)
        gateways.replace()
    for stream in streams:
        stream.until(len(stream.frames) + 20)
        assert not stream.is_cut
        stream.leave()
    gateway.until(lambda: prober.made > 20, "it has probed often")
    prober.end()
    assert prober.failed == []
    whole = text_of(prompt, 5000)
    for path, stream in zip(paths, streams, strict=True):
        assert len(text_of_frames(stream.frames)) > 50, path
        assert whole.startswith(text_of_frames(stream.frames)), path
    gateway.http.close()
    assert [process.wait(60) for process in gateways.all[:-1]] == [0, 0, 0]


def test_answer_without_streaming_during_a_handover_is_completed_in_every_api_dialect(gateways):
    """Earlier, answers of /v1/responses were a 404: the old gateway had deleted them."""
    gateway = gateways.gateway

    def post(path: str) -> httpx.Response:
        return gateway.http.post(path, json=ROUTES[path]("whole tokens=60 hold_at=30", stream=False))

    with ThreadPoolExecutor(len(ROUTES)) as clients, gateway.held():
        waiting = {path: clients.submit(post, path) for path in ROUTES}
        written = len(ROUTES)
        gateway.until(
            lambda: len(list((gateway.home / "answers").glob("*.open"))) == written, "they are written down"
        )
        gateways.replace()
        gateway.until(lambda: gateway.events("handed_over"), "it has handed over")
        gateway.go_on()
        answers = {path: future.result() for path, future in waiting.items()}
    assert {path: answer.status_code for path, answer in answers.items()} == dict.fromkeys(ROUTES, 200)
    for path, answer in answers.items():
        body = answer.json()
        counts = {**body, **body.get("usage", {})}
        assert 60 in (counts.get(name) for name in ("completion_tokens", "output_tokens", "eval_count")), path


def test_request_on_a_connection_from_before_a_handover_is_forwarded_to_the_new_gateway(gateways):
    gateway = gateways.gateway
    body = json.dumps(messages("forwarded tokens=4")).encode()
    head = f"POST /v1/chat/completions?x=%2F HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    old = gateways.all[-1]
    gateways.start()  # before the connection, which may not take long to send its headers
    with socket.create_connection(("127.0.0.1", gateway.port), 60) as connection:
        connection.sendall(b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert json.loads(_answer(connection).read())["version"], "the old one has accepted it"
        connection.sendall(head.encode())
        old.send_signal(signal.SIGUSR1)
        gateway.until(lambda: gateway.events("handed_over"), "it has handed over")
        connection.sendall(b"\r\n" + body)
        answer = _answer(connection)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert json.load(answer)["usage"]["completion_tokens"] == 4
    assert gateway.health()["pid"] == gateways.all[-1].pid


def _answer(connection: socket.socket) -> HTTPResponse:
    answer = HTTPResponse(connection)
    answer.begin()
    return answer


@pytest.mark.parametrize(
    "gateways",
    [{"VESTAL_MLX__MAX_RUNNING": "16", "VESTAL_MLX__KEEP_ANSWERS_S": "0"}],
    indirect=True,
)
def test_gateway_that_stores_no_answers_finishes_its_streams_before_it_hands_over(gateways):
    gateway = gateways.gateway
    streams = [
        Stream(gateway.http, path, make("x tokens=40 step_ms=40", stream=True))
        for path, make in ROUTES.items()
    ]
    for stream in streams:
        stream.until(3)
    prober = Prober(gateway.port)
    gateways.replace()
    for stream in streams:
        stream.join()
        assert not stream.is_cut
    gateway.until(lambda: gateway.health()["pid"] == gateways.all[-1].pid, "the successor serves")
    prober.end()
    assert prober.failed == []


def test_streams_of_a_gateway_killed_during_a_handover_are_continued_by_the_new_gateway(gateways, text_of):
    gateway, prompt = gateways.gateway, "killed tokens=5000 step_ms=40"
    stream = Stream(gateway.http, "/api/chat", messages(prompt, stream=True)).until(5)
    old = gateways.all[-1]
    gateways.start()
    old.kill()
    old.wait()
    stream.join()
    assert stream.is_cut
    rest = b""
    query = {"from": len(stream.frames)}
    with gateway.http.stream("GET", f"/v1/streams/{stream.id}", params=query) as again:
        for piece in again.iter_raw():
            rest += piece
            if rest.count(b"\n") > 20:
                break
    frames = stream.frames + frames_of(rest[: rest.rindex(b"\n") + 1])
    assert text_of(prompt, 5000).startswith(text_of_frames(frames))


def test_gateway_that_has_handed_over_ignores_another_handover_request_and_ends_at_sigterm(gateways):
    gateway = gateways.gateway
    stream = Stream(gateway.http, "/api/chat", messages("x tokens=5000 step_ms=50", stream=True)).until(3)
    old = gateways.all[-1]
    gateways.replace()
    old.send_signal(signal.SIGUSR1)
    gateway.until(lambda: gateway.events("handed_over"), "it has handed over")
    time.sleep(0.2)
    assert old.poll() is None
    old.terminate()
    assert old.wait(60) == 0
    stream.join()
    assert stream.is_cut
