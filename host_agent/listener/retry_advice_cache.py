"""How MLX and Ollama stand, for those who ask for a recovery pass: one look for all who ask at once."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from host_agent.services.retry_advice import RetryAdvice

log = logging.getLogger("vestal")

FRESH_S = 0.3
WITHIN_S = 0.5  # a caller waits 2 s in all, and the pass begins without this
STALE_S = 60.0

Told = Mapping[str, RetryAdvice]


class RetryAdviceCache:
    """Asks `look`. What it cannot tell in time is left unsaid, or told as it was within the last minute."""

    def __init__(self, look: Callable[[], Awaitable[Told]]) -> None:
        self._look = look
        self._task: asyncio.Task[None] | None = None
        self._last: Told = {}
        self._looked_at = float("-inf")

    async def told(self) -> Told:
        """`mlx` and `ollama`, where one of them is down and a pass will not bring it up now."""
        if self._age_s() <= FRESH_S:
            return self._last
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._now(), name="outlooks")
        await asyncio.wait({self._task}, timeout=WITHIN_S)
        return self._last if self._age_s() <= STALE_S else {}

    def _age_s(self) -> float:
        return time.monotonic() - self._looked_at

    async def _now(self) -> None:
        try:
            self._last = await self._look()
        except Exception:  # nothing of this may keep a pass from beginning
            log.warning("the outlook could not be told", exc_info=True)
            self._last = {}
        self._looked_at = time.monotonic()
