"""Time as a thing that is passed in: the system's clock for programs, a hand-moved one for tests."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Protocol


class Clock(Protocol):
    """What the shells ask for time. Deciding code takes `now: float` instead."""

    def now(self) -> float:
        """Monotonic seconds; only differences mean something."""

    def wall(self) -> float:
        """Seconds since the epoch, for people and for files."""

    async def sleep(self, seconds: float) -> None:
        """Returns once `seconds` of this clock have passed."""


class SystemClock:
    """The machine's own clock. Its monotonic time stands still while the machine sleeps."""

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


class FakeClock:
    """A clock that moves only by `advance`, which wakes those whose sleep is over, in order."""

    def __init__(self, now: float = 0.0, wall: float = 1_000_000_000.0) -> None:
        self._now = now
        self._wall_offset = wall - now
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._now + self._wall_offset

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), woken))
        await woken

    def advance(self, seconds: float) -> None:
        """Moves time at once. The woken run when the caller next awaits."""
        self._now += seconds
        while self._sleepers and self._sleepers[0][0] <= self._now:
            woken = heapq.heappop(self._sleepers)[2]
            if not woken.done():
                woken.set_result(None)

    async def run_for(self, seconds: float, turns: int = 20) -> None:
        """Moves time from one due sleeper to the next, letting the woken run (and sleep again) between."""
        end = self._now + seconds
        for _ in range(turns):  # those just created get to their first sleep
            await asyncio.sleep(0)
        while self._sleepers and self._sleepers[0][0] <= end:
            self.advance(max(0.0, self._sleepers[0][0] - self._now))
            for _ in range(turns):
                await asyncio.sleep(0)
        self.advance(end - self._now)
