"""Whose turn it is where the container's memory is short: fewer steps side by side, then none (R5.8).

One turn is one attempt of a step: a step that waits for its backend has no turn, and holds up nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from orchestrator import memory_guard
from orchestrator.events import emit

LOOK_AGAIN_S = 1.0  # memory that comes free is told by nobody


class StepGate:
    """Fewer turns than `most` from 80 % of the memory limit on, none from 90 %; first come first served."""

    def __init__(
        self,
        most: int,
        memory_fraction: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
        look_again_s: float = LOOK_AGAIN_S,
    ) -> None:
        self._most = most
        self._memory_fraction = memory_fraction
        self._clock = clock
        self._look_again_s = look_again_s
        self._line = asyncio.Lock()
        self._given_back = asyncio.Event()
        self.running = 0

    @asynccontextmanager
    async def turn(self, say: Callable[[str], None]) -> AsyncIterator[None]:
        """Wait for a turn, saying why it is not there yet; it ends with the block."""
        since = self._clock()
        held = not self._may_begin(since)
        if held:
            self._tell(say)
        async with self._line:
            while not self._may_begin(since):
                self._given_back.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._given_back.wait(), self._look_again_s)
            self.running += 1
        try:
            if held:
                say("")
                emit("step_released", waited_s=round(self._clock() - since, 1))
            yield
        finally:
            self.running -= 1
            self._given_back.set()

    def _may_begin(self, since: float) -> bool:
        waited_s = self._clock() - since
        return memory_guard.step_may_begin(self.running, self._most, self._memory_fraction(), waited_s)

    def _tell(self, say: Callable[[str], None]) -> None:
        fraction = self._memory_fraction()
        why = f"memory is at {fraction:.0%} of the limit, {self.running} step(s) at work"
        say(f"waiting: {why}")
        emit("step_held", why)
