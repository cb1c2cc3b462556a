"""Keeps responses that can be asked for later: in memory, for a time, and up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mlx_server.gateway.dialects.responses.input_items import Item
from mlx_server.gateway.dialects.responses.running import ResponseRun
from mlx_server.gateway.errors import NotFound

MAX_STORED_BYTES = 32 * 1024 * 1024


@dataclass(eq=False)
class StoredResponse:
    """A response with the conversation before it.

    `earlier` are the items of the responses that it continues, `items` those of its own input, which took
    `input_bytes` as JSON. `ended_at` is in monotonic seconds, None while the response runs.
    """

    run: ResponseRun
    earlier: tuple[Item, ...]
    items: tuple[Item, ...]
    input_bytes: int
    ended_at: float | None = None

    @property
    def id(self) -> str:
        return self.run.events.id

    @property
    def input_items(self) -> tuple[Item, ...]:
        """Return all items that the model was given."""
        return (*self.earlier, *self.items)

    @property
    def output_items(self) -> list[Item]:
        return list(self.run.events.response["output"])

    @property
    def conversation(self) -> tuple[Item, ...]:
        """Return the items that a response continuing this one begins with."""
        return (*self.input_items, *self.output_items)

    @property
    def size_bytes(self) -> int:
        # The items of earlier responses are shared with them; only the references count.
        return self.input_bytes + 8 * len(self.earlier) + sum(len(event.data) for event in self.run.log)


class ResponseStore(Protocol):
    """Where responses are kept. A response is added when it starts, and reported when it has ended."""

    @property
    def keeps_any(self) -> bool:
        """Return whether anything is kept at all."""

    def add(self, response: StoredResponse) -> None: ...
    def ended(self, response: StoredResponse) -> None: ...
    def remove(self, response_id: str) -> None: ...

    def find(self, response_id: str) -> StoredResponse | None:
        """Return the response, or None where it was never kept, was removed, or is too old."""

    def item(self, item_id: str) -> Item | None:
        """Return an item of the input or the output of a kept response. It may be called from any thread."""


class MemoryResponseStore:
    """Keeps ended responses for `keep_s` seconds, and the oldest ones not beyond `max_bytes` for all.

    Running responses are always kept; the gateway's queue bounds their number.
    """

    def __init__(self, keep_s: float, now: Callable[[], float], max_bytes: int = MAX_STORED_BYTES) -> None:
        self._keep_s = keep_s
        self._now = now
        self._max_bytes = max_bytes
        self._responses: OrderedDict[str, StoredResponse] = OrderedDict()  # those that ended first come first
        self._sizes_bytes: dict[str, int] = {}
        self._total_bytes = 0
        self._items: dict[str, Item] = {}

    @property
    def keeps_any(self) -> bool:
        return self._keep_s > 0

    def add(self, response: StoredResponse) -> None:
        self._drop_old()
        if self.keeps_any:
            self._responses[response.id] = response
            self._items |= {item["id"]: item for item in response.items}

    def ended(self, response: StoredResponse) -> None:
        """Count the response from now on, and drop the oldest ones that have no room any more."""
        if response.id not in self._responses:
            return
        response.ended_at = self._now()
        self._responses.move_to_end(response.id)
        self._items |= {item["id"]: item for item in response.output_items}
        self._sizes_bytes[response.id] = response.size_bytes
        self._total_bytes += response.size_bytes
        self._drop_old()

    def remove(self, response_id: str) -> None:
        response = self._responses.pop(response_id, None)
        if response is not None:
            self._total_bytes -= self._sizes_bytes.pop(response_id, 0)
            for item in (*response.items, *response.output_items):
                self._items.pop(item["id"], None)

    def find(self, response_id: str) -> StoredResponse | None:
        self._drop_old()
        return self._responses.get(response_id)

    def item(self, item_id: str) -> Item | None:
        return self._items.get(item_id)  # changes nothing, because it is also called from threads

    def _drop_old(self) -> None:
        oldest_kept = self._now() - self._keep_s
        for response in list(self._responses.values()):
            if response.ended_at is None:
                continue
            if response.ended_at > oldest_kept and self._total_bytes <= self._max_bytes:
                break
            self.remove(response.id)


def found(store: ResponseStore, response_id: str) -> StoredResponse:
    """Return the response. Raises NotFound."""
    response = store.find(response_id)
    if response is None:
        raise NotFound("response_not_found", _unknown(response_id), param="response_id")
    return response


def _unknown(response_id: str) -> str:
    return (
        f"Response {response_id[:80]!r} was not found: it was never stored here, was deleted, or is older "
        "than mlx.keep_answers_s."
    )
