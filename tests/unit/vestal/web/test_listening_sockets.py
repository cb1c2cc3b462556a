"""Sockets that a server inherits from its parent."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from vestal.web import acceptor
from vestal.web.listening_sockets import FDS_VARIABLE, InheritedSockets, addresses, fds_value


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        ([], ["127.0.0.1"]),
        (["localhost", "192.168.1.5"], ["127.0.0.1", "192.168.1.5"]),
        (["0.0.0.0", "192.168.1.5", "::1"], ["0.0.0.0", "::1"]),
        (["::"], ["127.0.0.1", "::"]),
    ],
)
def test_listening_addresses_include_loopback_and_omit_addresses_that_a_wildcard_covers(
    configured: list[str], expected: list[str]
):
    assert addresses(configured) == expected


def test_inherited_socket_can_be_taken_only_once_and_its_variable_is_removed():
    bound = acceptor.bind("127.0.0.1", 0)
    port = bound.getsockname()[1]
    environment = {FDS_VARIABLE: fds_value([bound]), "PATH": "/bin"}
    bound.detach()  # as in a child process, if only the number is known
    inherited = InheritedSockets.from_environment(environment)
    assert environment == {"PATH": "/bin"}
    assert inherited.take("127.0.0.1", port + 1) is None
    taken = inherited.take("127.0.0.1", port)
    assert taken is not None
    with taken, socket.create_connection(("127.0.0.1", port)):
        assert taken.proto == socket.IPPROTO_TCP
        assert not taken.get_inheritable()
        assert not taken.getblocking()
        taken.accept()[0].close()
    assert inherited.take("127.0.0.1", port) is None


def test_inherited_descriptor_that_is_not_a_listening_socket_is_left_open():
    reading, writing = os.pipe()
    with socket.socket() as unbound:
        value = f"{reading},{unbound.fileno()},999999,x,"
        inherited = InheritedSockets.from_environment({FDS_VARIABLE: value})
        inherited.close()
        assert unbound.getsockname()
    os.write(writing, b"x")
    assert os.read(reading, 1) == b"x"
    os.close(reading)
    os.close(writing)


def test_inherited_listening_socket_is_found_where_the_kernel_does_not_say_whether_a_socket_listens(
    monkeypatch: pytest.MonkeyPatch,
):
    """On macOS, SO_ACCEPTCONN is defined, but the kernel answers ENOPROTOOPT. Once, a gateway there took no
    inherited socket, and could not bind its port because the agent listened on it.
    """
    getsockopt = socket.socket.getsockopt

    def as_on_macos(of: socket.socket, level: int, option: int, *size: int) -> int | bytes:
        if option == socket.SO_ACCEPTCONN:
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")
        return getsockopt(of, level, option, *size)

    monkeypatch.setattr(socket.socket, "getsockopt", as_on_macos)
    bound = acceptor.bind("127.0.0.1", 0)
    address = bound.getsockname()
    connected, unbound = socket.create_connection(address), socket.socket()
    numbers = [each.detach() for each in (bound, connected, unbound)]
    (found,) = InheritedSockets.of_descriptors(numbers)
    with found:
        assert found.getsockname() == address
    for number in numbers[1:]:
        os.close(number)  # not closed by then, because they belong to somebody else


def test_inherited_socket_that_no_listener_has_taken_over_is_closed(free_port):
    bound = acceptor.bind("127.0.0.1", free_port())  # which no other process gets afterwards
    address = bound.getsockname()
    inherited = InheritedSockets.from_environment({FDS_VARIABLE: str(bound.detach())})
    inherited.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
