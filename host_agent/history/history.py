"""Sample the use of memory and the counts of requests and tokens, for the plots of GET /history.

Most samples come from the gateway's responses to the agent's health probes, so that no additional request is
needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from host_agent.history import counters, plot
from host_agent.history.counters import Reading
from host_agent.history.plot import FINE_STEP_S, SPANS
from host_agent.history.sample import Sample
from host_agent.history.store import HistoryStore
from host_agent.journal import Journal
from vestal.platform import memory
from vestal.platform.memory import Memory

LEAST_GAP_S = 8.0  # a gateway that is starting is probed more often than every 10 s
RESTARTING = "child_restarting"  # this event has the field `attempt` only if the restart follows a failure

Listener = Callable[[dict[str, Any]], None]
"""A function that is called with the JSON of a sample: its time, and the value of each series."""


class History:
    """Takes samples, writes them to `store`, and returns them as plots.

    `on_health` must be called after each health probe of the gateway, which happens every `probe_each_s`
    seconds. While no gateway is probed, `run` takes samples without the gateway's statistics.
    """

    def __init__(
        self,
        journal: Journal,
        store: HistoryStore,
        probe_each_s: float,
        read_memory: Callable[[], Memory] = memory.read,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal, self._store, self._read_memory = journal, store, read_memory
        self._wall, self._monotonic = wall, monotonic
        self._patience_s = max(FINE_STEP_S, 1.5 * probe_each_s)
        self._sampled = asyncio.Event()
        self._sampled_at, self._knew_gateway = float("-inf"), False
        self._last: Reading | None = None
        self._last_seq = journal.last_seq
        self._listeners: set[Listener] = set()
        self.newest: dict[str, Any] | None = None

    def on_health(self, body: Mapping[str, Any] | None) -> None:
        """Take a sample. `body` is the gateway's response to GET /health, or None if it did not answer.

        No sample is taken within LEAST_GAP_S of the last one, unless the last one was taken without a
        response and this one has a response.
        """
        soon = self._monotonic() - self._sampled_at < LEAST_GAP_S
        if not soon or (body is not None and not self._knew_gateway):
            self._take(body)

    async def run(self) -> None:
        """Take samples without the gateway's statistics while no gateway is probed, because `on_health` is
        then not called. Run until cancelled.

        Such a sample is taken whenever the last sample of any sort is as old as 1.5 probe intervals or
        FINE_STEP_S, whichever is longer.
        """
        while True:
            self._sampled.clear()
            try:
                async with asyncio.timeout(self._patience_s):
                    await self._sampled.wait()
            except TimeoutError:
                self._take(None)

    def keep(self) -> None:
        """Try to write the samples that could not be written earlier, for example because the disk was full.
        If this fails again, the samples stay in memory until the next call.
        """
        self._store.keep()

    def plot(self, name: str) -> dict[str, Any]:
        """Return the plot of the range `name` (hour, day or week): the body of GET /history without its
        `marks`.
        """
        now, span = self._wall(), SPANS[name]
        # If probes are rarer than the steps of the plot, make the steps longer.
        if span.is_fine:
            span = span.with_steps_of(self._patience_s)
        read = self._store.fine if span.is_fine else self._store.coarse
        return {"range": name, **plot.plot(read(now - span.length_s), span, now)}

    @contextlib.contextmanager
    def listen(self, listener: Listener) -> Iterator[None]:
        """Call `listener` with each new sample until the `with` block ends."""
        self._listeners.add(listener)
        try:
            yield
        finally:
            self._listeners.discard(listener)

    def _take(self, body: Mapping[str, Any] | None) -> None:
        self._sampled_at, self._knew_gateway = self._monotonic(), body is not None
        host = self._read_memory()
        figures: dict[str, float] = {
            "host_available_bytes": host.available_bytes,
            "host_total_bytes": host.total_bytes,
            "restarts": self._restarts_since(self._last_seq),
        }
        self._last_seq = self._journal.last_seq
        if body is not None:
            known, reading = counters.read(body, self._sampled_at)
            figures |= known | counters.growth(self._last, reading)
            self._last = reading
        sample = Sample(int(self._wall()), figures)
        self._store.add(sample)
        self.newest = {"time": sample.time, "values": plot.values(figures)}
        self._sampled.set()
        for listener in list(self._listeners):
            listener(self.newest)

    def _restarts_since(self, seq: int) -> int:
        """Return how often services were restarted after a failure, according to the journal's events after
        number `seq`.
        """
        if self._journal.last_seq == seq:
            return 0
        return sum("attempt" in entry["fields"] for entry in self._journal.of_kinds((RESTARTING,), seq))
