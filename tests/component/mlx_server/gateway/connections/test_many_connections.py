"""Clients that are slow, silent or many: the others are served meanwhile, by the same process."""

from __future__ import annotations

import json
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from host_agent.services.http_probe import TIMEOUT_S as PROBE_TIMEOUT_S
from mlx_server.gateway.dialects.body_budget import WAIT_S
from tests.component.mlx_server.gateway.conftest import PROGRAM, Gateway
from vestal.web.connections import BODY_WINDOW_S, HEADERS_WITHIN_S
from vestal.web.descriptors import raise_descriptor_limit

MACOS_DEFAULT = 256
UNDER_LIMIT = f"""
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({MACOS_DEFAULT}, {MACOS_DEFAULT}))
runpy.run_path({str(PROGRAM)!r}, run_name="__main__")
"""
PROBES = 3
"""How many probes may be late one after the other: a gateway that is out of connections answers none in time,
but a busy machine may keep one waiting. The agent too acts only when several have failed in a row.
"""
SILENT = b""
HEADERS = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nX-A: "
BODY = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n{"
IDLE = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
KINDS = {"silent": SILENT, "headers": HEADERS, "body": BODY, "idle": IDLE}


@pytest.fixture(scope="module")
def narrow(make_gateway) -> Gateway:
    """A gateway that may open no more files than a process of macOS by default."""
    raise_descriptor_limit()  # of the test: it holds the other ends
    return make_gateway(None, "-c", UNDER_LIMIT).start().until_ok()


def connect(stack: ExitStack, gateway: Gateway, sent: bytes) -> socket.socket:
    client = stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=30))
    client.sendall(sent)
    return client


def received_until_closed(client: socket.socket, timeout_s: float) -> bytes:
    """Return what the gateway sends until it closes the connection. Raises TimeoutError."""
    client.settimeout(timeout_s)
    received = b""
    try:
        while part := client.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    return received


def answered_after_s(gateway: Gateway) -> float:
    """Return how long the first of at most PROBES probes took that the agent would wait for, or the last."""
    waited_s = 0.0
    for _ in range(PROBES):
        began = time.monotonic()
        with ExitStack() as stack:
            client = connect(stack, gateway, HEALTH)
            assert received_until_closed(client, 30).startswith(b"HTTP/1.1 200")
        if (waited_s := time.monotonic() - began) < PROBE_TIMEOUT_S:
            break
    return waited_s


@contextmanager
def stream_beside(gateway: Gateway) -> Iterator[list[int]]:
    """Run one stream meanwhile, and yield the counts of its lines; it must not end."""
    counts = [0]
    ended = threading.Event()

    def read(lines: Iterator[str]) -> None:
        for _ in lines:
            counts[0] += 1
            if ended.is_set():
                return

    body = gateway.chat("tokens=1000000 step_ms=5")
    with gateway.http.stream("POST", "/api/chat", json=body) as answer:
        reader = threading.Thread(target=read, args=(answer.iter_lines(),))
        reader.start()
        yield counts
        assert reader.is_alive(), "the stream was closed"
        ended.set()
        reader.join(60)


@pytest.mark.parametrize("kind", KINDS)
def test_gateway_with_a_thousand_silent_connections_serves_health_and_a_stream(narrow: Gateway, kind: str):
    """Earlier, 300 idle connections used up 256 descriptors, and the agent killed the unreachable gateway."""
    pid = narrow.process and narrow.process.pid
    with stream_beside(narrow) as lines, ExitStack() as stack:
        waited_s = []
        for number in range(1000):
            connect(stack, narrow, KINDS[kind])
            if number % 50 == 0:
                before = lines[0]
                waited_s.append(answered_after_s(narrow))
        narrow.until(lambda: lines[0] > before + 10, "the stream goes on")
    assert statistics.median(waited_s) < 1 and max(waited_s) < PROBE_TIMEOUT_S
    assert narrow.process and narrow.process.poll() is None and narrow.process.pid == pid
    assert "Too many open files" not in narrow.log()
    narrow.until(lambda: narrow.events("connections_dropped"), "what was dropped is reported")


def test_gateway_does_not_close_a_connection_that_is_idle_for_7_s_between_requests(gateway: Gateway):
    """By default uvicorn closes idle connections after 5 s, while a client's tool may take longer."""
    with ExitStack() as stack:
        client = connect(stack, gateway, IDLE)
        time.sleep(7)
        client.sendall(IDLE)
        client.settimeout(30)
        received = b""
        while received.count(b"HTTP/1.1 200") < 2:
            part = client.recv(65536)
            assert part, "it was closed"
            received += part


def test_gateway_closes_connections_that_are_silent_or_send_a_byte_at_a_time(gateway: Gateway):
    """Earlier, 5,000 such connections stayed open for as long as their client liked."""
    with ExitStack() as stack:
        silent, headers, body = (connect(stack, gateway, sent) for sent in (SILENT, HEADERS, BODY))
        unread = connect(stack, gateway, BODY.replace(b"/api/chat", b"/nowhere"))
        began = time.monotonic()
        while time.monotonic() < began + max(HEADERS_WITHIN_S, BODY_WINDOW_S) - 1:
            for client in (headers, body, unread):
                client.sendall(b" ")
            time.sleep(1)
        assert received_until_closed(silent, 30) == received_until_closed(headers, 30) == b""
        refusal = received_until_closed(body, 30)
        assert refusal.startswith(b"HTTP/1.1 408 ")
        assert json.loads(refusal.partition(b"\r\n\r\n")[2])["code"] == "request_timeout"
        assert received_until_closed(unread, 30).startswith(b"HTTP/1.1 404 ")


def test_large_bodies_beyond_the_memory_budget_are_refused_while_small_bodies_are_served(make_gateway):
    gateway = make_gateway(VESTAL_MLX__BODY_BUDGET_BYTES="300000").start().until_ok()
    large: dict[str, Any] = gateway.chat("tokens=100000 step_ms=5 " + "x " * 100_000)
    small = gateway.chat("tokens=2", stream=False)
    with gateway.http.stream("POST", "/api/chat", json=large) as running:
        lines = running.iter_lines()  # must stay referenced: the connection closes with it
        next(lines)
        began = time.monotonic()
        refused = gateway.http.post("/v1/chat/completions", json=large)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) > 0
        assert "body_budget_bytes" in refused.json()["error"]["message"]
        assert 5 < time.monotonic() - began < 20
        for path in ("/api/chat", "/v1/chat/completions"):
            began = time.monotonic()
            assert gateway.http.post(path, json=small).status_code == 200
            assert time.monotonic() - began < WAIT_S, "it does not wait for the memory"
    done = gateway.http.post(
        "/api/chat", json=large | {"messages": [{"role": "user", "content": "x " * 100_000}]}
    )
    assert done.status_code == 200
