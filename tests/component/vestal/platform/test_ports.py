"""The holder of a real port."""

from __future__ import annotations

import os
import socket

from vestal.platform import ports


def test_port_holder_is_found_only_while_it_listens():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        assert ports.holder(port) is None, "a socket that is only bound does not listen"
        listening.listen()
        found = ports.holder(port)
        assert found is not None
        assert found.pid == os.getpid()
        assert found.since is not None
        assert not ports.is_free(port)
    assert ports.holder(port) is None
    assert ports.is_free(port)
