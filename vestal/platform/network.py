"""The host's own addresses that matter here."""

import socket

import psutil


def bridge_address() -> str | None:
    """The IPv4 address of Docker's bridge on Linux: what `host-gateway` names inside containers.

    None on a Mac (Docker Desktop reaches 127.0.0.1 by itself) and where no engine has run yet.
    """
    for entry in psutil.net_if_addrs().get("docker0", []):
        if entry.family == socket.AF_INET:
            return str(entry.address)
    return None
