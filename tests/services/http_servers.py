"""Serve HTTP in a thread of the tests' process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import BaseServer
from typing import TypeVar

ServerT = TypeVar("ServerT", bound=BaseServer)
POLL_S = 0.02
"""The end of a server takes up to this long."""


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
