"""Hold back the launch of an engine until the machine has memory for it."""

from __future__ import annotations

from collections.abc import Callable

from vestal.platform.memory_headroom import Headroom
from vestal.supervision import Clock, LaunchError

TIMEOUT_S = 10.0
"""How long to wait for memory. Metal takes 5 to 10 s to free the memory of a killed engine."""

POLL_S = 0.25
"""How often to check the memory, because no event announces that memory was freed."""


class MemoryGate:
    """Delays each launch of an engine while the machine is short of memory. If the shortage lasts longer than
    `timeout_s` seconds, the launch fails. The supervisor awaits the gate before a launch. `read_headroom`
    returns the state of the machine's memory.
    """

    def __init__(
        self, read_headroom: Callable[[], Headroom], clock: Clock, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._read_headroom, self._clock, self._timeout_s = read_headroom, clock, timeout_s

    async def __call__(self) -> None:
        """Wait while the machine is short of memory. Raises LaunchError if it still is after `timeout_s`
        seconds, because an engine that starts with too little memory would fail and leak more of it.
        """
        deadline = self._clock.now() + self._timeout_s
        while (headroom := self._read_headroom()).shortage:
            if self._clock.now() >= deadline:
                raise LaunchError(headroom.message)
            await self._clock.sleep(POLL_S)
