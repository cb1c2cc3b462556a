"""`status` events: the body of GET /status, whenever it has changed, and from time to time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from host_agent.journal import Journal
from host_agent.listener.live.hub import Publish
from host_agent.listener.live.mailbox import frame

KEY = "status"
LOOK_EACH_S = 1.0
PUSH_EACH_S = 10.0
VARIABLE = frozenset({"uptime_s", "rss_bytes", "memory", "next_in_s", "next_trial_in_s"})
"""Figures that change with time alone. A status that differs only in these counts as unchanged."""

NEVER: tuple[float, Any] = (float("-inf"), None)
Entries = asyncio.Queue[dict[str, Any] | None]


class StatusSource:
    """Publishes the status when it has changed, and at least each PUSH_EACH_S seconds.

    The status is read after each journal event, at most once a second, and once more a second later, because
    a service may still change after the event and the first reading may have come from a cache.
    """

    def __init__(self, journal: Journal, read: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        self._journal, self._read = journal, read
        self._frame = b""
        self._pushed = NEVER

    def newest(self) -> Mapping[str, bytes]:
        return {KEY: self._frame} if self._frame else {}

    async def run(self, publish: Publish) -> None:
        try:
            await self._run(publish)
        finally:  # so that a page opened later does not show an old status
            self._frame, self._pushed = b"", NEVER

    async def _run(self, publish: Publish) -> None:
        with self._journal.follow() as entries, contextlib.suppress(_JournalCloses):
            looks_again = False
            while True:
                await self._look(publish)
                came = await _wait(entries, LOOK_EACH_S, first_only=False)
                if not came and not looks_again:
                    came = await _wait(entries, PUSH_EACH_S - LOOK_EACH_S, first_only=True)
                looks_again = came

    async def _look(self, publish: Publish) -> None:
        status = await self._read()
        pushed_at, essence = self._pushed
        now, new = time.monotonic(), without_variable(status)
        if new != essence or now - pushed_at >= PUSH_EACH_S - LOOK_EACH_S / 2:
            self._pushed, self._frame = (now, new), frame("status", status)
            publish(KEY, self._frame)


def without_variable(value: Any) -> Any:
    """Return a copy of a JSON value without the fields in VARIABLE, which change with each reading."""
    if isinstance(value, dict):
        return {name: without_variable(part) for name, part in value.items() if name not in VARIABLE}
    return [without_variable(part) for part in value] if isinstance(value, list) else value


class _JournalCloses(Exception):
    """Raised when the journal has been closed, so that no entry will follow."""


async def _wait(entries: Entries, timeout_s: float, *, first_only: bool) -> bool:
    """Take entries from the queue and drop them, until `timeout_s` seconds have passed or, with `first_only`,
    one has come. Return whether any came. Raises _JournalCloses if the journal was closed.
    """
    came = False
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while not (came and first_only):
                if await entries.get() is None:
                    raise _JournalCloses
                came = True
    return came
