"""Poll a function on a separate thread, so that a call that hangs does not freeze the screen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from host_agent.cli.screen.event_feed import FeedEvent

ASK_PAUSE_S, ASK_EACH_S = 0.3, 2.0


class Poller:
    """Calls `ask` on a separate thread: once at the start, every ASK_EACH_S seconds while the attribute
    `is_needed` is True, and whenever `ask_soon` is called. Each result of `ask` is put into the queue
    `events`.
    """

    def __init__(self, ask: Callable[[], FeedEvent], events: SimpleQueue[FeedEvent]) -> None:
        self._ask, self._events = ask, events
        self._wanted = threading.Event()
        self.is_needed = True

    def start(self) -> None:
        """Start polling on a daemon thread, which does not keep the process alive."""
        threading.Thread(target=self._run, name="poller", daemon=True).start()

    def ask_soon(self) -> None:
        """Have the thread call `ask` once more as soon as possible."""
        self._wanted.set()

    def _run(self) -> None:
        while True:
            self._wanted.clear()
            self._events.put(self._ask())
            time.sleep(ASK_PAUSE_S)
            self._wanted.wait(ASK_EACH_S - ASK_PAUSE_S if self.is_needed else None)
