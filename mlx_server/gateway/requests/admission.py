"""Who gets on: so many at once, a bounded queue behind them, and fairness between clients.

A place is held from the start of a request to its end, also while it is parked, so that what ran before a
crash runs on after it. Next is the client that holds the fewest places; among equals, the one whose turn is
longest ago. One client's requests keep their order.
"""

from __future__ import annotations

from collections import Counter, deque


class QueueFull(Exception):
    """Neither a place nor a seat in the queue is left."""

    def __init__(self, running: int, queued: int) -> None:
        super().__init__(f"{running} requests run and {queued} wait")
        self.running = running
        self.queued = queued


class Admission:
    """Places and queue of one kind of request. Ids are unique; clients are told apart by any string."""

    def __init__(self, max_running: int, max_queued: int) -> None:
        self._max_running = max_running
        self._max_queued = max_queued
        self._places: dict[str, str] = {}
        self._held: Counter[str] = Counter()
        self._queues: dict[str, deque[str]] = {}  # in the order of turns; no queue in it is empty
        self._client_of: dict[str, str] = {}

    @property
    def held(self) -> int:
        """How many places are taken."""
        return len(self._places)

    @property
    def queued(self) -> int:
        return len(self._client_of)

    def enqueue(self, request_id: str, client: str) -> None:
        """Takes a seat in the queue. Raises QueueFull."""
        if self.held + self.queued >= self._max_running + self._max_queued:
            raise QueueFull(self.held, self.queued)
        self._client_of[request_id] = client
        self._queues.setdefault(client, deque()).append(request_id)

    def take(self) -> str | None:
        """The request whose turn it is, now holding a place; None where none waits or no place is free."""
        if not self._queues or self.held >= self._max_running:
            return None
        client = min(self._queues, key=lambda name: self._held[name])  # the first of the least
        queue = self._queues.pop(client)
        request_id = queue.popleft()
        if queue:
            self._queues[client] = queue  # its next turn comes after the others'
        del self._client_of[request_id]
        self._places[request_id] = client
        self._held[client] += 1
        return request_id

    def leave(self, request_id: str) -> None:
        """Gives up the request's place or its seat."""
        client = self._places.pop(request_id, None)
        if client is not None:
            self._held[client] -= 1
            if not self._held[client]:
                del self._held[client]
            return
        client = self._client_of.pop(request_id, None)
        if client is not None:
            queue = self._queues[client]
            queue.remove(request_id)
            if not queue:
                del self._queues[client]
