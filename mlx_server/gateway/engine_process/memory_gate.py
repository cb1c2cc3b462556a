"""Before an engine is started: whether the machine's memory allows it (R3.6, R6.3)."""

from __future__ import annotations

from collections.abc import Callable

from vestal.platform.memory_headroom import Headroom
from vestal.supervision import Clock, LaunchError

WITHIN_S = 10.0
"""Metal takes 5 to 10 s to give back what a killed engine held."""

LOOK_EACH_S = 0.25


class MemoryGate:
    """Awaited before each launch: waits for memory to come back, and says no where it does not."""

    def __init__(self, look: Callable[[], Headroom], clock: Clock, within_s: float = WITHIN_S) -> None:
        self._look, self._clock, self._within_s = look, clock, within_s

    async def __call__(self) -> None:
        """Raises LaunchError: no more restarts, where they would only make it worse."""
        until = self._clock.now() + self._within_s
        while (found := self._look()).shortage:
            if self._clock.now() >= until:
                raise LaunchError(found.message)
            await self._clock.sleep(LOOK_EACH_S)
