"""Serve HTTP in a thread of the tests' process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from socketserver import BaseServer
from typing import Any, TypeVar

ServerT = TypeVar("ServerT", bound=BaseServer)
POLL_S = 0.02
"""The end of a server takes up to this long."""


class JsonAnswers(BaseHTTPRequestHandler):
    """Handles the requests to a test's server, which a subclass answers by `answer`, and logs none."""

    def answer(self, fields: dict[str, Any], status: int = 200) -> None:
        """Send a response with `fields` as its JSON body."""
        body = json.dumps(fields).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


@contextmanager
def serving(server: ServerT) -> Iterator[ServerT]:
    """Serve in a thread for the time of the block, then close the server."""
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
