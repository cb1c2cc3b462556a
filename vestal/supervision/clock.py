"""Clocks that are passed as an argument: the system's for programs, and one that tests advance."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Protocol


class Clock(Protocol):
    """The interface of a clock, for code with side effects. Pure code takes `now: float` instead."""

    def now(self) -> float:
        """Return monotonic seconds; only differences mean something."""

    def wall(self) -> float:
        """Return the wall-clock time in seconds since 1970, to be shown or stored."""

    async def sleep(self, seconds: float) -> None:
        """Wait until `seconds` of this clock have passed."""


class SystemClock:
    """The machine's own clock. Its monotonic time stands still while the machine sleeps."""

    def now(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def wall(self) -> float:
        """Return the seconds since 1970."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait until `seconds` have passed."""
        await asyncio.sleep(max(0.0, seconds))


async def next_tick(clock: Clock, interval_s: float) -> None:
    """Sleep until the clock is next at a multiple of `interval_s`.

    All loops that wait like this wake at the same moments, so that an idle process wakes less often.
    """
    await clock.sleep(interval_s - clock.now() % interval_s)


class FakeClock:
    """A clock for tests, which stands still until a test advances it."""

    def __init__(self, now: float = 0.0, wall: float = 1_000_000_000.0) -> None:
        self._now = now
        self._wall_offset = wall - now
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        """Return the time to which the clock was advanced."""
        return self._now

    def wall(self) -> float:
        """Return the time to which the clock was advanced, in seconds since 1970."""
        return self._now + self._wall_offset

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was advanced by `seconds`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), woken))
        await woken

    def advance(self, seconds: float) -> None:
        """Move the time at once, and wake the sleepers that are due, in order.

        They run when the caller next awaits.
        """
        self._now += seconds
        while self._sleepers and self._sleepers[0][0] <= self._now:
            woken = heapq.heappop(self._sleepers)[2]
            if not woken.done():
                woken.set_result(None)

    async def run_for(self, seconds: float, turns: int = 20) -> None:
        """Advance the time by `seconds`, with a stop at each time at which a sleeper is due, so that the
        sleeper runs at that time.

        At each stop, the event loop runs `turns` times, which must suffice until the sleeper sleeps again.
        """
        end = self._now + seconds
        for _ in range(turns):  # tasks that were just created reach their first sleep
            await asyncio.sleep(0)
        while self._sleepers and self._sleepers[0][0] <= end:
            self.advance(max(0.0, self._sleepers[0][0] - self._now))
            for _ in range(turns):
                await asyncio.sleep(0)
        self.advance(end - self._now)
