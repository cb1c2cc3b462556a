"""Lets a call go on for as long as its host is alive (`liveness`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from orchestrator.llm.liveness import Limits, Silence

T = TypeVar("T")


class StreamTimeout:
    """One call's silence. `answers` asks the host a small question; it never raises."""

    def __init__(self, limits: Limits, answers: Callable[[], Awaitable[bool]]) -> None:
        self._limits = limits
        self._answers = answers
        self._silence = Silence(limits, time.monotonic())

    def heard(self) -> None:
        """There was a sign of work."""
        self._silence = self._silence.heard(time.monotonic())

    async def to(self, call: Coroutine[Any, Any, T]) -> T:
        """What the call returns or raises; TimeoutError, saying why, once its host counts as hung."""
        task = asyncio.ensure_future(call)
        try:
            while not (await asyncio.wait({task}, timeout=self._limits.look_s))[0]:
                why = await self._look()
                if why and not task.done():
                    raise TimeoutError(why)
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)  # its connection is given back

    async def _look(self) -> str:
        """Why it is given up, if it is."""
        if self._silence.is_short(time.monotonic()):
            return ""
        answers = await self._answers()
        self._silence = self._silence.looked(answers)
        return self._silence.verdict(time.monotonic())
