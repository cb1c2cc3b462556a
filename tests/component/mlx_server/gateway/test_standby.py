"""A spare engine stands by, takes the place of one that dies, and never outlives the gateway."""

from __future__ import annotations

import contextlib
import signal

import psutil
import pytest


def _spares(gateway) -> list[int]:
    found = []
    for child in psutil.Process(gateway.process.pid).children():
        with contextlib.suppress(psutil.Error):
            if "--spare" in child.cmdline() and child.pid != gateway.engine_pid():
                found.append(child.pid)
    return found


@pytest.fixture
def gateway(make_gateway):
    return make_gateway(VESTAL_MLX__WARM_SPARE="true").start().until_ok()


def test_spare_when_the_engine_is_killed_takes_its_place_and_another_stands_by(gateway):
    (spare,) = gateway.until(lambda: _spares(gateway), "a spare stands by")
    gateway.kill_engine()
    gateway.until(lambda: gateway.health()["engine"]["pid"] == spare, "the spare is the engine")
    gateway.until_ok()
    assert gateway.http.post("/api/chat", json=gateway.chat("hello", stream=False)).status_code == 200
    assert gateway.until(lambda: _spares(gateway), "another stands by") != [spare]


def test_spare_that_is_dead_is_no_obstacle_to_a_restart(gateway):
    (spare,) = gateway.until(lambda: _spares(gateway), "a spare stands by")
    before = gateway.engine_pid()
    psutil.Process(spare).kill()
    gateway.kill_engine()
    gateway.until(lambda: gateway.health()["engine"]["pid"] not in (None, before, spare), "a new engine")
    gateway.until_ok()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_spare_when_the_gateway_ends_ends_too(gateway, number):
    (spare,) = gateway.until(lambda: _spares(gateway), "a spare stands by")
    gateway.process.send_signal(number)
    gateway.process.wait(15)
    gateway.until(lambda: not psutil.pid_exists(spare) or _is_zombie(spare), "the spare is gone")


def _is_zombie(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True
