"""Call `POST /recover` from many clients at the same time: `python -m benchmarks.agent.callers PORT COUNT <
TOKEN`.

Each client has a connection of its own. All requests are sent before any answer is read. The output is a JSON
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
    """Send `count` requests `POST /recover` at the same time to the agent at `port`, each on a connection of
    its own. Return for each the milliseconds from the opening of the connection until the agent closed it,
    and the body of the answer. `token` is the agent's bearer token.

    Raises TimeoutError if no answer arrives for WITHIN_S seconds, and OSError if a connection fails.
    """
    request = REQUEST % (token.encode(), len(BODY), BODY)
    selector = selectors.DefaultSelector()
    answers: dict[socket.socket, bytes] = {}
    began: dict[socket.socket, float] = {}
    for _ in range(count):
        connection = socket.socket()
        began[connection], answers[connection] = time.perf_counter(), b""
        connection.connect(("127.0.0.1", port))  # returns at once: the kernel accepts the connection
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
