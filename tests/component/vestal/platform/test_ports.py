"""The holder of a real port."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from vestal.platform import ports


def test_port_holder_is_found_only_while_it_listens(free_port: Callable[[], int]):
    port = free_port()  # no outgoing connection of another process gets it afterwards
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", port))
        assert ports.holder(port) is None, "a socket that is only bound does not listen"
        listening.listen()
        found = ports.holder(port)
        assert found is not None
        assert found.pid == os.getpid()
        assert found.since is not None
        assert not ports.is_free(port)
    assert ports.holder(port) is None
    assert ports.is_free(port)
