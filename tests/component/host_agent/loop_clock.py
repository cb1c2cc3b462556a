"""A clock for tests of promptness, which runs on the event loop that is tested.

A timer or a wait takes as long by this clock as by any other one. But a time in which the machine gave this
process no CPU counts for almost nothing, so no test of promptness fails because the machine is busy.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType

TICK_S = 0.01
MOST_S = 0.02
"""How much a turn of the clock counts at the most, unless this process has computed for longer."""


class LoopClock:
    """Measures the time of an `async with` block: `elapsed_s`."""

    def __init__(self) -> None:
        self.elapsed_s = 0.0
        self._ticking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> LoopClock:
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._ticking
        self._ticking.cancel()
        await asyncio.wait({self._ticking})

    async def _tick(self) -> None:
        at, computed_s = time.monotonic(), time.process_time()
        while True:
            await asyncio.sleep(TICK_S)
            now, computed_now_s = time.monotonic(), time.process_time()
            self.elapsed_s += min(now - at, max(MOST_S, computed_now_s - computed_s))
            at, computed_s = now, computed_now_s
