"""Decide which requests run: limit how many run and wait, and be fair between clients. Pure.

A request holds a slot from its start to its end, even while it is parked between two engines, so that it can
continue after a crash. The next slot goes to the client that holds the fewest slots; among equal clients, to
the one that has waited longest since its last slot. The requests of one client keep their order.
"""

from __future__ import annotations

from collections import Counter, deque
from enum import StrEnum


class Lane(StrEnum):
    """A class of requests that has slots and a queue of its own, so that requests of different lanes do not
    wait for each other: an embedding takes 20 ms, but an answer many seconds.
    """

    GENERATE = "generate"
    EMBED = "embed"
    RERANK = "rerank"
    CONTROL = "control"  # load or unload a model, count the tokens of a prompt


class QueueFull(Exception):
    """All slots and all positions in the queue are taken."""

    def __init__(self, running: int, queued: int) -> None:
        super().__init__(f"{running} requests run and {queued} wait")
        self.running = running
        self.queued = queued


class Admission:
    """The slots and the queue of one class of requests (`Lane`), such as the embeddings. At most
    `max_running` requests hold a slot, and up to `max_queued` more wait in the queue. A free slot goes to the
    waiting client that holds the fewest slots. Request ids must be unique; a client is identified by any
    string.
    """

    def __init__(self, max_running: int, max_queued: int) -> None:
        self._max_running = max_running
        self._max_queued = max_queued
        self._slots: dict[str, str] = {}  # request id -> client
        self._slots_of: Counter[str] = Counter()  # client -> how many slots it holds
        self._queues: dict[str, deque[str]] = {}  # client -> request ids; the longest waiting client first
        self._queued: dict[str, str] = {}  # request id -> client

    @property
    def slots_in_use(self) -> int:
        return len(self._slots)

    @property
    def queued(self) -> int:
        return len(self._queued)

    def enqueue(self, request_id: str, client: str, *, was_accepted: bool = False) -> None:
        """Add a request to the queue. `client` is any string that identifies who sent it. Raises QueueFull if
        the number of running and waiting requests has reached its limit, unless this request was accepted
        before (`was_accepted`).
        """
        if not was_accepted and self.slots_in_use + self.queued >= self._max_running + self._max_queued:
            raise QueueFull(self.slots_in_use, self.queued)
        self._queued[request_id] = client
        self._queues.setdefault(client, deque()).append(request_id)

    def admit_next(self) -> str | None:
        """Give the next request a slot and return its id; None if no request waits or no slot is free."""
        if not self._queues or self.slots_in_use >= self._max_running:
            return None
        # Of the clients with the fewest slots, min() returns the first, which has waited longest.
        client = min(self._queues, key=lambda name: self._slots_of[name])
        queue = self._queues.pop(client)
        request_id = queue.popleft()
        if queue:
            self._queues[client] = queue  # at the end, so that the other clients come first
        del self._queued[request_id]
        self._slots[request_id] = client
        self._slots_of[client] += 1
        return request_id

    def release(self, request_id: str) -> None:
        """Free the request's slot or its position in the queue. This does nothing if the request is
        unknown.
        """
        client = self._slots.pop(request_id, None)
        if client is not None:
            self._slots_of[client] -= 1
            if not self._slots_of[client]:
                del self._slots_of[client]
            return
        client = self._queued.pop(request_id, None)
        if client is not None:
            queue = self._queues[client]
            queue.remove(request_id)
            if not queue:
                del self._queues[client]
