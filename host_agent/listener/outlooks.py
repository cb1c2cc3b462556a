"""How MLX and Ollama stand, for those who ask for a recovery pass: one look for all who ask at once."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from host_agent.recovery.outlook import Outlook

log = logging.getLogger("vestal")

FRESH_S = 0.3
WITHIN_S = 0.5  # a caller waits 2 s in all, and the pass begins without this

Look = Callable[[], Awaitable[Mapping[str, Outlook]]]


class Outlooks:
    """Asks `look`; what it cannot tell in time is left unsaid."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._task: asyncio.Task[Mapping[str, Outlook]] | None = None
        self._looked_at = float("-inf")

    async def told(self) -> Mapping[str, Outlook]:
        """`mlx` and `ollama`, where one of them is down and a pass will not bring it up now."""
        if self._task is None or (self._task.done() and time.monotonic() - self._looked_at > FRESH_S):
            self._task = asyncio.create_task(self._now(), name="outlooks")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WITHIN_S):
                return await asyncio.shield(self._task)
        return {}

    async def _now(self) -> Mapping[str, Outlook]:
        try:
            return await self._look()
        except Exception:  # nothing of this may keep a pass from beginning
            log.warning("the outlook could not be told", exc_info=True)
            return {}
        finally:
            self._looked_at = time.monotonic()
