"""A machine that sleeps, as two clocks tell it."""

from __future__ import annotations

import asyncio

import pytest

from vestal.supervision import FakeClock, SleepDetector, watch_sleep


class Clocks:
    def __init__(self) -> None:
        self.boot, self.awake = 500.0, 400.0  # it has slept before

    def pass_s(self, seconds: float, slept_s: float = 0.0, faster: float = 1.0) -> None:
        self.awake += seconds
        self.boot += seconds * faster + slept_s


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def watch(clocks) -> SleepDetector:
    return SleepDetector(lambda: clocks.boot, lambda: clocks.awake)


def test_machine_that_stays_awake_has_not_slept(clocks, watch):
    for _ in range(100):
        clocks.pass_s(1)
        assert watch.check() == 0.0


def test_sleep_is_seen_once(clocks, watch):
    clocks.pass_s(1, slept_s=3600)
    assert watch.check() == 3600
    clocks.pass_s(1)
    assert watch.check() == 0.0
    assert watch.slept_s == 3600


def test_sleeps_add_up(clocks, watch):
    for slept_s in (60, 600):
        clocks.pass_s(1, slept_s=slept_s)
        watch.check()
    assert watch.slept_s == 660


def test_clocks_of_different_speed_are_no_sleep(clocks, watch):
    for _ in range(100_000):
        clocks.pass_s(1, faster=1.0001)
        assert watch.check() == 0.0


async def test_wake_is_told_within_a_look(clocks, watch):
    clock, told = FakeClock(), list[float]()
    task = asyncio.create_task(watch_sleep(watch, clock, told.append))
    await clock.run_for(5)
    assert told == []
    clocks.pass_s(0.1, slept_s=1800)
    await clock.run_for(1)
    assert told == [1800]
    await clock.run_for(10)
    assert told == [1800]
    task.cancel()
