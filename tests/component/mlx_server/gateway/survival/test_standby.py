"""The standby engine takes the place of one that dies, and never outlives the gateway."""

from __future__ import annotations

import contextlib
import signal

import psutil
import pytest

from tests.processes import has_ended


def _standby_engines(gateway) -> list[int]:
    found = []
    for child in psutil.Process(gateway.process.pid).children():
        with contextlib.suppress(psutil.Error):
            if "--standby" in child.cmdline() and child.pid != gateway.engine_pid():
                found.append(child.pid)
    return found


@pytest.fixture
def gateway(make_gateway):
    return make_gateway(VESTAL_MLX__WARM_SPARE="true").start().until_ok()


def test_standby_engine_when_the_engine_is_killed_takes_over_and_is_replaced(gateway):
    (standby,) = gateway.until(lambda: _standby_engines(gateway), "there is a standby engine")
    gateway.kill_engine()
    gateway.until(lambda: gateway.health()["engine"]["pid"] == standby, "the standby engine is the engine")
    gateway.until_ok()
    assert gateway.http.post("/api/chat", json=gateway.chat("hello", stream=False)).status_code == 200
    assert gateway.until(lambda: _standby_engines(gateway), "there is another standby engine") != [standby]


def test_engine_that_is_killed_when_its_standby_is_dead_too_is_replaced_by_a_new_one(gateway):
    (standby,) = gateway.until(lambda: _standby_engines(gateway), "there is a standby engine")
    before = gateway.engine_pid()
    psutil.Process(standby).kill()
    gateway.kill_engine()
    gateway.until(lambda: gateway.health()["engine"]["pid"] not in (None, before, standby), "a new engine")
    gateway.until_ok()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_standby_engine_ends_with_the_gateway(gateway, number):
    (standby,) = gateway.until(lambda: _standby_engines(gateway), "there is a standby engine")
    gateway.process.send_signal(number)
    gateway.process.wait(60)
    gateway.until(lambda: has_ended(standby), "the standby engine is gone")
