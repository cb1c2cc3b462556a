"""Limit how many steps run in parallel while the container's memory is short. The limit may become 0.

A step waits for a turn before each attempt, and the limit is the number of turns at one time. The turn ends
with the attempt, so a step that waits for its backend before it tries again does not hold up another step.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from orchestrator import memory_guard
from orchestrator.events import emit

POLL_S = 1.0  # freed memory is not announced, so it is polled


class StepGate:
    """Lets steps begin in the order of their arrival, and fewer at a time while memory is short.

    `memory_fraction` returns the used share of the container's memory limit. Below 0.8, the gate holds no
    step back, even if more than `max_running` run (LlmClient limits their calls to models). From 0.8 to
    0.9, at most half of `max_running` steps (but at least one) run at a time, decreasing to one near 0.9.
    From 0.9 on, no step begins, except one that has waited ten minutes while no other step runs.

    While steps wait, the memory is measured every `poll_s` seconds, and whenever a step ends. `clock` returns
    the time in seconds.
    """

    def __init__(
        self,
        max_running: int,
        memory_fraction: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
        poll_s: float = POLL_S,
    ) -> None:
        self._max_running = max_running
        self._memory_fraction = memory_fraction
        self._clock = clock
        self._poll_s = poll_s
        self._queue = asyncio.Lock()
        self._turn_ended = asyncio.Event()
        self.running = 0

    @asynccontextmanager
    async def turn(self, say: Callable[[str], None]) -> AsyncIterator[None]:
        """Wait for a turn, which ends with the `async with` block. If the step has to wait, `say` is called
        with the reason, and with "" when the turn begins.
        """
        since = self._clock()
        held = not self._may_begin(since)
        if held:
            self._report_wait(say)
        async with self._queue:
            while not self._may_begin(since):
                self._turn_ended.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._turn_ended.wait(), self._poll_s)
            self.running += 1
        try:
            if held:
                say("")
                emit("step_released", waited_s=round(self._clock() - since, 1))
            yield
        finally:
            self.running -= 1
            self._turn_ended.set()

    def _may_begin(self, since: float) -> bool:
        waited_s = self._clock() - since
        return memory_guard.step_may_begin(self.running, self._max_running, self._memory_fraction(), waited_s)

    def _report_wait(self, say: Callable[[str], None]) -> None:
        fraction = self._memory_fraction()
        why = f"memory is at {fraction:.0%} of the limit, {self.running} step(s) running"
        say(f"waiting: {why}")
        emit("step_held", why)
