"""TCP ports for tests, so that test processes that run side by side never get the same one."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

# These ports lie below the ranges from which Linux (32768) and macOS (49152) give ports to outgoing
# connections, so a port that was free when a test asked for it stays free until the test's server binds it.
FIRST_PORT, LAST_PORT, BLOCK_PORTS = 12_000, 32_000, 100


class Ports:
    """Give each port once. A block of ports is claimed, until `close`, by listening on its first port."""

    def __init__(self) -> None:
        self._claims: list[socket.socket] = []
        self._ports = self._free_ports()

    def pick(self) -> int:
        """Return a port that nobody listens on. Raise `RuntimeError` if all blocks are claimed."""
        return next(self._ports)

    def close(self) -> None:
        for claim in self._claims:
            claim.close()

    def _free_ports(self) -> Iterator[int]:
        for first in range(FIRST_PORT, LAST_PORT, BLOCK_PORTS):
            if not self._claim(first):
                continue
            for port in range(first + 1, first + BLOCK_PORTS):
                if _is_free(port):
                    yield port
        raise RuntimeError(f"no TCP port from {FIRST_PORT} to {LAST_PORT} is left for the tests")

    def _claim(self, port: int) -> bool:
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", port))
            claim.listen()
        except OSError:
            claim.close()
            return False
        self._claims.append(claim)
        return True


def _is_free(port: int) -> bool:
    with contextlib.suppress(OSError), socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
        return True
    return False
