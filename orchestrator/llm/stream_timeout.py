"""Await a call to a backend, and cancel it if the backend hangs: if it has sent nothing for minutes, or
leaves liveness requests unanswered. `liveness` decides this.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from orchestrator.llm.liveness import CallSilence, SilenceLimits

T = TypeVar("T")


class StreamTimeout:
    """Watches one call to a backend, and cancels it if the backend sends nothing for longer than `limits`
    allow, or leaves several liveness requests in a row unanswered. The caller must report received data with
    `received`.

    `is_alive` sends the backend a liveness request, and returns whether it answered; it never raises. It is
    called repeatedly while the backend is silent.
    """

    def __init__(self, limits: SilenceLimits, is_alive: Callable[[], Awaitable[bool]]) -> None:
        self._limits = limits
        self._is_alive = is_alive
        self._silence = CallSilence(limits, time.monotonic())

    def received(self) -> None:
        """Record that the backend sent something."""
        self._silence = self._silence.received(time.monotonic())

    async def watch(self, call: Coroutine[Any, Any, T]) -> T:
        """Await the call, and return its result or raise its error. Raises TimeoutError, with the reason, if
        the backend hangs.
        """
        task = asyncio.ensure_future(call)
        try:
            while not (await asyncio.wait({task}, timeout=self._limits.check_s))[0]:
                why = await self._check()
                if why and not task.done():
                    raise TimeoutError(why)
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)  # so that its connection returns to the pool

    async def _check(self) -> str:
        """Send the backend a liveness request if it has been silent for long enough, and return why it counts
        as hung, or "" if it does not.
        """
        if self._silence.is_short(time.monotonic()):
            return ""
        answered = await self._is_alive()
        self._silence = self._silence.checked(answered)
        return self._silence.verdict(time.monotonic())
