"""What people are told if there is no connection to a service."""

from __future__ import annotations

import errno
import os
import sys

import pytest

from host_agent.services.http_probe import LOCAL_NETWORK, why_not_connected

NO_ROUTE = OSError(errno.EHOSTUNREACH, "Connect call failed ('10.0.0.1', 80)")
REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 11435)")
TIMED_OUT = OSError(errno.ETIMEDOUT, "Connect call failed ('10.0.0.1', 80)")


def test_failed_connection_is_explained_without_asyncios_own_words(monkeypatch: pytest.MonkeyPatch):
    """Earlier, `make up` showed asyncio's `Connect call failed ('127.0.0.1', 11435)` again and again."""
    monkeypatch.setattr(sys, "platform", "linux")
    assert why_not_connected(REFUSED) == "nothing listens there"
    assert why_not_connected(NO_ROUTE) == os.strerror(errno.EHOSTUNREACH)


def test_machine_without_a_route_is_explained_with_macos_local_network_setting(
    monkeypatch: pytest.MonkeyPatch,
):
    """macOS 15 and later answer so to a job of launchd that may not use the local network."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert why_not_connected(NO_ROUTE) == f"{os.strerror(errno.EHOSTUNREACH)}; {LOCAL_NETWORK}"
    several = OSError(f"Multiple exceptions: {TIMED_OUT}, {NO_ROUTE}")
    assert why_not_connected(several).endswith(LOCAL_NETWORK)
    assert why_not_connected(REFUSED) == "nothing listens there"
    assert why_not_connected(TIMED_OUT) == os.strerror(errno.ETIMEDOUT)
