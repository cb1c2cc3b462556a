"""Many callers of `POST /recover` at once: `python -m benchmarks.agent.callers PORT COUNT < TOKEN`.

Each caller is a connection of its own. All requests are sent before an answer is read. The result is a JSON
list with the milliseconds and the body of each answer.
"""

from __future__ import annotations

import json
import resource
import selectors
import socket
import sys
import time

WITHIN_S = 30.0
BODY = b'{"mlx": true}'
REQUEST = (
    b"POST /recover HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
)


def call(port: int, count: int, token: str) -> list[tuple[float, str]]:
    """Return the milliseconds from the start of each connection to its end, and the body of its answer.

    Raises TimeoutError if an answer is missing, OSError.
    """
    request = REQUEST % (token.encode(), len(BODY), BODY)
    selector = selectors.DefaultSelector()
    answers: dict[socket.socket, bytes] = {}
    began: dict[socket.socket, float] = {}
    for _ in range(count):
        connection = socket.socket()
        began[connection], answers[connection] = time.perf_counter(), b""
        connection.connect(("127.0.0.1", port))  # the kernel accepts it at once
        connection.sendall(request)
        selector.register(connection, selectors.EVENT_READ)
    ended: list[tuple[float, str]] = []
    while len(ended) < count:
        ready = selector.select(WITHIN_S)
        if not ready:
            raise TimeoutError(f"{count - len(ended)} callers have no answer within {WITHIN_S:g} s.")
        for key, _ in ready:
            caller = key.fileobj
            assert isinstance(caller, socket.socket)
            data = caller.recv(65536)
            answers[caller] += data
            if not data:
                took_ms = (time.perf_counter() - began[caller]) * 1000
                ended.append((took_ms, answers[caller].partition(b"\r\n\r\n")[2].decode()))
                selector.unregister(caller)
                caller.close()
    return ended


def main(port: int, count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + 100:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, hard))
    print(json.dumps(call(port, count, sys.stdin.read().strip())))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
