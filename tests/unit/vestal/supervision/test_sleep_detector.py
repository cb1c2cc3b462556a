"""The detection of a machine's sleep by two clocks."""

from __future__ import annotations

import asyncio

import pytest

from vestal.supervision import FakeClock, SleepDetector, watch_sleep


class Clocks:
    """A boot clock and an awake clock; the machine has already slept 100 s."""

    def __init__(self) -> None:
        self.boot, self.awake = 500.0, 400.0

    def advance(self, awake_s: float, slept_s: float = 0.0, boot_speed: float = 1.0) -> None:
        self.awake += awake_s
        self.boot += awake_s * boot_speed + slept_s


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def detector(clocks) -> SleepDetector:
    return SleepDetector(lambda: clocks.boot, lambda: clocks.awake)


def test_sleep_check_on_a_machine_that_stays_awake_returns_zero(clocks, detector):
    for _ in range(100):
        clocks.advance(1)
        assert detector.check() == 0.0


def test_sleep_check_returns_each_sleep_only_once(clocks, detector):
    clocks.advance(1, slept_s=3600)
    assert detector.check() == 3600
    clocks.advance(1)
    assert detector.check() == 0.0
    assert detector.slept_s == 3600


def test_sleep_detector_adds_up_the_time_of_all_sleeps(clocks, detector):
    for slept_s in (60, 600):
        clocks.advance(1, slept_s=slept_s)
        detector.check()
    assert detector.slept_s == 660


def test_sleep_check_ignores_clocks_of_slightly_different_speed(clocks, detector):
    for _ in range(100_000):
        clocks.advance(1, boot_speed=1.0001)
        assert detector.check() == 0.0


async def test_watch_sleep_reports_each_wake_once_and_within_a_second(clocks, detector):
    clock, sleeps = FakeClock(), list[float]()
    task = asyncio.create_task(watch_sleep(detector, clock, sleeps.append))
    await clock.run_for(5)
    assert sleeps == []
    clocks.advance(0.1, slept_s=1800)
    await clock.run_for(1)
    assert sleeps == [1800]
    await clock.run_for(10)
    assert sleeps == [1800]
    task.cancel()
