"""A service with few descriptors keeps serving when silent clients take all of its descriptors."""

from __future__ import annotations

import http.client
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from vestal.web.descriptors import raise_descriptor_limit

REPO = Path(__file__).resolve().parents[4]
PROGRAM = REPO / "tests" / "children" / "serves_under_limit.py"
SLOW_S = 3.0  # until GET /slow is answered
SILENT = b""
HEADERS = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: "
BODY = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n{"
IDLE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextmanager
def service(port: int, descriptors: int, connections: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(PROGRAM), str(port), str(descriptors), str(connections)]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n"
            yield process
        finally:
            process.terminate()


def ask(port: int, path: str = "/") -> tuple[int, float]:
    """Return the status of a request on a new connection, and the seconds that it took."""
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    status = connection.getresponse().status
    connection.close()
    return status, time.monotonic() - began


def connect(stack: ExitStack, port: int, sent: bytes) -> socket.socket:
    client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
    client.sendall(sent)
    return client


def is_open(client: socket.socket) -> bool:
    client.settimeout(0.2)
    try:
        while received := client.recv(65536):
            assert received.startswith(b"HTTP/1.1 200")
    except TimeoutError:
        return True
    except ConnectionError:
        pass
    return False


@pytest.mark.parametrize("sent", [SILENT, HEADERS, BODY, IDLE], ids=["silent", "headers", "body", "idle"])
@pytest.mark.parametrize(
    ("descriptors", "connections"),
    [pytest.param(128, 40, id="few connections"), pytest.param(64, 1000, id="no descriptor left")],
)
def test_acceptor_full_of_silent_connections_answers_a_new_request_within_a_second(
    free_port: Callable[[], int], descriptors: int, connections: int, sent: bytes
):
    """Earlier, 300 idle connections used up macOS's 256 descriptors and made a service unreachable."""
    raise_descriptor_limit()
    slowest: list[float] = []
    for _ in range(3):
        slowest.append(slowest_answer(free_port(), descriptors, connections, sent))
        if slowest[-1] < 1:
            break  # a service that waits for silent clients does so each time, a busy machine does not
    assert min(slowest) < 1


def slowest_answer(port: int, descriptors: int, connections: int, sent: bytes) -> float:
    """Return the seconds that the slowest of 20 requests took, while 400 clients connected."""
    took = []
    with service(port, descriptors, connections), ExitStack() as stack:
        for number in range(400):
            connect(stack, port, sent)
            if number % 20 == 0:
                status, took_s = ask(port)
                assert status == 200
                took.append(took_s)
    return max(took)


def test_acceptor_drops_the_oldest_silent_connections_but_none_that_is_being_answered(
    free_port: Callable[[], int],
):
    port = free_port()
    with service(port, 128, 20) as process, ExitStack() as stack:
        busy = connect(stack, port, b"GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        old = [connect(stack, port, SILENT) for _ in range(19)]
        assert ask(port)[0] == 200
        new = [connect(stack, port, SILENT) for _ in range(10)]
        assert ask(port)[0] == 200
        assert [is_open(client) for client in old[:10]] == [False] * 10
        assert [is_open(client) for client in (*old[-4:], *new)] == [True] * 14
        assert busy.recv(65536).startswith(b"HTTP/1.1 200")
        assert process.stdout is not None
        assert process.stdout.readline().startswith("dropped ")


def test_acceptor_at_its_connection_limit_with_only_busy_connections_lets_a_new_connection_wait(
    free_port: Callable[[], int],
):
    port = free_port()
    with service(port, 128, 5), ExitStack() as stack:
        slow = b"GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        began = time.monotonic()
        busy = [connect(stack, port, slow) for _ in range(5)]
        assert ask(port)[0] == 200
        # It waited until one of the others was answered.
        assert SLOW_S <= time.monotonic() - began < SLOW_S + 12
        for client in busy:
            assert client.recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process's descriptors")
def test_acceptor_without_a_free_descriptor_reports_it_once_and_accepts_again_later(
    free_port: Callable[[], int],
):
    """Earlier, no message said why an agent or a gateway without a free descriptor did not answer."""
    port = free_port()
    with service(port, 128, 40) as process, ExitStack() as stack:
        assert ask(port)[0] == 200
        used = {int(name) for name in os.listdir(f"/proc/{process.pid}/fd")}
        free = next(number for number in range(128) if number not in used)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (free, 128))
        waiting = [connect(stack, port, IDLE) for _ in range(3)]
        assert process.stdout is not None
        assert process.stdout.readline() == "stuck Too many open files\n"
        time.sleep(0.1)  # some further attempts fail
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (128, 128))
        for client in waiting:
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
        process.terminate()
        assert "stuck" not in process.stdout.read()
