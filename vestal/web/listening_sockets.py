"""Listening sockets that outlive the process which serves them.

The parent of a server binds its sockets, keeps them open, and lets each process of the server inherit them. A
connection that a client makes while no such process lives waits in the kernel's queue and is not refused.
systemd's socket activation and launchd's `Sockets` work in the same way. The environment variable with the
descriptors is VESTAL_LISTEN_FDS, not systemd's LISTEN_FDS: along with that, systemd sets LISTEN_PID to the
PID of the process that inherits the sockets, and a parent does not know that PID before the launch.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, MutableMapping

FDS_VARIABLE = "VESTAL_LISTEN_FDS"
"""The environment variable with the descriptors of the inherited sockets, separated by commas."""

LOOPBACK = "127.0.0.1"
EVERYWHERE = frozenset({"0.0.0.0", "::"})


def addresses(configured: Iterable[str]) -> list[str]:
    """Return loopback and the configured addresses. A wildcard replaces all other addresses of its family."""
    wanted = dict.fromkeys([LOOPBACK, *(LOOPBACK if a == "localhost" else a for a in configured)])
    return [a for a in wanted if a in EVERYWHERE or ("::" if ":" in a else "0.0.0.0") not in wanted]


def fds_value(sockets: Iterable[socket.socket]) -> str:
    """Return the value of FDS_VARIABLE by which a child process finds these sockets."""
    return ",".join(str(listening.fileno()) for listening in sockets)


class InheritedSockets:
    """The listening sockets that this process has inherited, by address and port."""

    def __init__(self, sockets: Iterable[socket.socket] = ()) -> None:
        self._by_address: dict[tuple[str, int], socket.socket] = {}
        for listening in sockets:
            address, port = listening.getsockname()[:2]
            self._by_address[address, port] = listening

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> InheritedSockets:
        """Return the sockets that FDS_VARIABLE names, and remove the variable, so that no child looks for
        them.

        A descriptor that is not a listening TCP socket is left alone.
        """
        words = environment.pop(FDS_VARIABLE, "").split(",")
        return cls(cls.of_descriptors(int(word) for word in words if word.isdigit()))

    @staticmethod
    def of_descriptors(descriptors: Iterable[int]) -> list[socket.socket]:
        """Return a socket for each of the descriptors that is a listening TCP socket. The sockets become
        non-blocking, and children of this process do not inherit them. Other descriptors are left alone.
        """
        return [found for fd in descriptors if (found := _listening_socket(fd)) is not None]

    def take(self, address: str, port: int) -> socket.socket | None:
        """Return the socket for this address, which the caller then owns; None if none was inherited."""
        return self._by_address.pop((address, port), None)

    def close(self) -> None:
        """Close the sockets that nothing has taken, because the settings now name other addresses."""
        for listening in self._by_address.values():
            listening.close()
        self._by_address.clear()


def _listening_socket(fd: int) -> socket.socket | None:
    try:
        found = socket.socket(fileno=fd)
    except OSError:
        return None
    try:
        is_ours = (
            found.family in (socket.AF_INET, socket.AF_INET6)
            and found.type == socket.SOCK_STREAM
            and _is_listening(found)
        )
    except OSError:
        is_ours = False
    if not is_ours:
        found.detach()  # the descriptor belongs to somebody else
        return None
    # The protocol is named, since asyncio sets TCP_NODELAY only then.
    listening = socket.socket(found.family, found.type, socket.IPPROTO_TCP, found.detach())
    listening.setblocking(False)
    os.set_inheritable(listening.fileno(), False)
    return listening


def _is_listening(found: socket.socket) -> bool:
    """Return whether a TCP socket listens. Raises OSError if the kernel does not say.

    macOS defines SO_ACCEPTCONN, but answers ENOPROTOOPT to whoever asks for it. There, a socket that is bound
    to a port and has no peer counts as listening.
    """
    try:
        return bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise
    try:
        found.getpeername()
    except OSError as error:
        return error.errno == errno.ENOTCONN and found.getsockname()[1] != 0
    return False
