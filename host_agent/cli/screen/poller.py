"""Poll a function on a thread of its own, so that a call that hangs does not freeze the screen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from host_agent.cli.screen.event_feed import FeedEvent

ASK_PAUSE_S, ASK_EACH_S = 0.3, 2.0


class Poller:
    """Calls `ask` every 2 s while `is_needed`, and after `ask_soon`; puts the results into `events`."""

    def __init__(self, ask: Callable[[], FeedEvent], events: SimpleQueue[FeedEvent]) -> None:
        self._ask, self._events = ask, events
        self._wanted = threading.Event()
        self.is_needed = True

    def start(self) -> None:
        """Start polling on a daemon thread, which does not keep the process alive."""
        threading.Thread(target=self._run, name="poller", daemon=True).start()

    def ask_soon(self) -> None:
        """Call `ask` once more, soon."""
        self._wanted.set()

    def _run(self) -> None:
        while True:
            self._wanted.clear()
            self._events.put(self._ask())
            time.sleep(ASK_PAUSE_S)
            self._wanted.wait(ASK_EACH_S - ASK_PAUSE_S if self.is_needed else None)
