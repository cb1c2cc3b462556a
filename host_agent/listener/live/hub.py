"""The followers (clients) of GET /live, and the sources of the events that are sent to them. Each source runs
once, for all followers together.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from host_agent.listener.live.mailbox import Mailbox

log = logging.getLogger("vestal")

RESTART_DELAY_S = 5.0

Publish = Callable[[str, bytes], None]
"""Called with a key and a frame; a newer frame of a key replaces an older one that was not sent yet."""


class Source(Protocol):
    """Produces frames (server-sent events, as bytes) for all followers of GET /live.

    Each frame has a key, which names its subject, such as the status or one incident. A newer frame of a key
    replaces an older one that was not sent yet.
    """

    def newest(self) -> Mapping[str, bytes]:
        """Return the newest frame of each key, by key. A client is sent these frames as soon as it opens
        GET /live.
        """

    async def run(self, publish: Publish) -> None:
        """Publish frames until cancelled, or until the agent stops."""


class Hub:
    """Delivers the frames of all sources to each follower of GET /live. Each source runs in a task of its
    own, and only while there is a follower.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._followers: set[Mailbox] = set()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def followers(self) -> int:
        """Return how many followers there are."""
        return len(self._followers)

    @contextlib.contextmanager
    def follow(self) -> Iterator[Mailbox]:
        """Yield a mailbox that receives each frame. The mailbox is closed when the agent stops."""
        mailbox = Mailbox()
        for source in self._sources:
            for key, frame in source.newest().items():
                mailbox.put(key, frame)
        self._followers.add(mailbox)
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._run(source)) for source in self._sources]
        try:
            yield mailbox
        finally:
            self._followers.discard(mailbox)
            if not self._followers:
                self._end_tasks()

    def close(self) -> None:
        """End the stream of every follower."""
        for mailbox in self._followers:
            mailbox.close()
        self._end_tasks()

    def _publish(self, key: str, frame: bytes) -> None:
        for mailbox in self._followers:
            mailbox.put(key, frame)

    def _end_tasks(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()

    async def _run(self, source: Source) -> None:
        """Run a source. Run it again RESTART_DELAY_S after it raised an exception. If it returns, the agent
        is stopping, so end the stream of every follower.
        """
        while True:
            try:
                await source.run(self._publish)
            except Exception:
                log.exception("%s failed", type(source).__name__)
                await asyncio.sleep(RESTART_DELAY_S)
            else:
                self.close()
                return
