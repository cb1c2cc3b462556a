"""Find the addresses of this machine that Vestal listens on beyond loopback."""

import socket

import psutil

BRIDGE = "docker0"


def bridge_address() -> str | None:
    """Return the IPv4 address of Docker's bridge on Linux, which containers reach as `host-gateway`.

    None on a Mac, where Docker Desktop forwards to 127.0.0.1, and if the Docker engine has not run yet.
    """
    try:
        socket.if_nametoindex(BRIDGE)  # much cheaper than the list of all addresses
    except OSError:
        return None
    for entry in psutil.net_if_addrs().get(BRIDGE, []):
        if entry.family == socket.AF_INET:
            return str(entry.address)
    return None
