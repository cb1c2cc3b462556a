"""The gateway's listening sockets, kept open by the watchdog while no agent lives.

The agent passes them to its watchdog, and the next agent takes them back. Both use a Unix socket in the `run`
folder, which only the owner can enter. So if the gateway has died with the agent, a client that connects
meanwhile waits instead of being refused. If the gateway has survived, the next agent has the sockets that it
must pass to a successor of that gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from vestal.web.listening_sockets import InheritedSockets

PUT, GET, DONE = b"put", b"get", b"done"
SOCKET_NAME = "watchdog.sock"
TIMEOUT_S = 1.0
MOST_SOCKETS = 32
_READ_BYTES = 16


class StoreUnreachable(Exception):
    """No watchdog answers on its Unix socket."""


class SocketStore:
    """Keeps the gateway's sockets in the watchdog, for callers that connect to the Unix socket `path`. It
    answers one caller at a time, and waits TIMEOUT_S for each.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stored: list[int] = []
        self._listening: socket.socket | None = None

    def start(self) -> None:
        """Listen on the Unix socket. On an error (a path too long, a full disk), do not raise: the watchdog
        then keeps no sockets, and the agent's calls of `put` and `take_back` raise StoreUnreachable.
        """
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                listening.bind(str(self._path))
                listening.listen()
            except OSError:
                listening.close()
                raise
            listening.setblocking(False)
            self._listening = listening
            asyncio.get_running_loop().add_reader(listening, self._serve)

    def stop(self) -> None:
        """Close the Unix socket and everything that is stored."""
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
        self._replace([])

    def _serve(self) -> None:
        assert self._listening is not None
        with contextlib.suppress(OSError):  # a caller that hung up, or sends nothing
            caller, _ = self._listening.accept()
            with caller:
                caller.settimeout(TIMEOUT_S)
                word, received, _, _ = socket.recv_fds(caller, _READ_BYTES, MOST_SOCKETS)
                if word == PUT:
                    self._replace(received)
                    caller.sendall(DONE)
                elif word == GET:
                    _send(caller, DONE, self._stored)

    def _replace(self, descriptors: Sequence[int]) -> None:
        for descriptor in self._stored:
            os.close(descriptor)
        self._stored = list(descriptors)


def put(path: Path, sockets: Sequence[socket.socket]) -> None:
    """Pass duplicates of these sockets to the watchdog, which keeps them in place of the sockets that it has.

    Raises StoreUnreachable if the watchdog does not answer.
    """
    _call(path, PUT, [each.fileno() for each in sockets])


def take_back(path: Path) -> list[socket.socket]:
    """Return duplicates of the listening sockets that the watchdog keeps; it continues to keep its own.
    `path` is the watchdog's Unix socket. Raises StoreUnreachable if the watchdog does not answer.
    """
    return InheritedSockets.of_descriptors(_call(path, GET, []))


def _send(to: socket.socket, word: bytes, descriptors: list[int]) -> None:
    if descriptors:
        socket.send_fds(to, [word], descriptors)
    else:
        to.sendall(word)


def _call(path: Path, word: bytes, descriptors: list[int]) -> list[int]:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as store:
            store.settimeout(TIMEOUT_S)
            store.connect(str(path))
            _send(store, word, descriptors)
            answer, received, _, _ = socket.recv_fds(store, _READ_BYTES, MOST_SOCKETS)
    except OSError as error:
        raise StoreUnreachable(str(error)) from error
    if answer != DONE:
        raise StoreUnreachable("the watchdog hung up")
    return received
