"""Store responses that can be requested later: in memory, for a limited time, and up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from mlx_server.gateway.dialects.responses.input_items import Item
from mlx_server.gateway.dialects.responses.running import ResponseRun
from mlx_server.gateway.errors import NotFound
from mlx_server.gateway.json_text import json_bytes

MAX_STORED_BYTES = 32 * 1024 * 1024


@dataclass(eq=False)
class StoredResponse:
    """A response, and the conversation before it. The conversation is stored as JSON, because Python objects
    would take several times as much memory.

    `run` generates the response, and then holds its events and output. `items` is the list of the items of
    the response's own input, whose ids are `input_ids`. `earlier` is the conversation that the response
    continues: for each of its responses, oldest first, a list of the input items and a list of the output
    items. `ended_at` is the monotonic time in seconds, None while the response runs.
    """

    run: ResponseRun
    earlier: tuple[bytes, ...] = ()
    items: bytes = b"[]"
    input_ids: tuple[str, ...] = ()
    ended_at: float | None = None

    @property
    def id(self) -> str:
        return self.run.events.id

    @property
    def input_items(self) -> list[Item]:
        """Return all input items of the response, including those of earlier responses that it continues."""
        return items_in(self.lists)

    @property
    def item_ids(self) -> tuple[str, ...]:
        """Return the ids of the items in the response's own input and output."""
        return (*self.input_ids, *(item["id"] for item in self.run.events.response["output"]))

    def item(self, item_id: str) -> Item | None:
        """Return the item with this id from the response's own input or output; None if there is none. Any
        thread may call this method.
        """
        own = [*self.run.events.response["output"], *items_in([self.items])]
        return next((item for item in own if item["id"] == item_id), None)

    @property
    def lists(self) -> tuple[bytes, ...]:
        """Return the lists of input items: the lists of the responses that this one continues, and its
        own.
        """
        return (*self.earlier, self.items)

    @property
    def conversation(self) -> tuple[bytes, ...]:
        """Return the items of the conversation up to and including this response: for each of its responses,
        oldest first, a JSON list of the input items and one of the output items. A response that continues
        this one gets these lists as its `earlier`.
        """
        return (*self.earlier, self.items, json_bytes(self.run.events.response["output"]))

    @property
    def size_bytes(self) -> int:
        """Return how many bytes the response takes without its lists of items, which other responses may
        share.
        """
        return 8 * len(self.earlier) + sum(len(event.data) for event in self.run.log)


def items_in(lists: Iterable[bytes]) -> list[Item]:
    """Return the items of all lists together. Each list is JSON."""
    return [item for each in lists for item in msgspec.json.decode(each)]


class ResponseStore(Protocol):
    """The interface of a store of responses. A response is added with `add` when it starts; `ended` is called
    when it has ended.
    """

    @property
    def keeps_any(self) -> bool:
        """Return whether the settings allow the store to keep responses at all."""

    def add(self, response: StoredResponse) -> None:
        """Store a response that starts. It replaces the stored response with the same id, if any: when a
        client asks again for the answer to a suspended or ended request, the gateway runs the request again
        from the answer log, and creates its response anew.
        """

    def ended(self, response: StoredResponse) -> None: ...
    def remove(self, response_id: str) -> None: ...

    def find(self, response_id: str) -> StoredResponse | None:
        """Return the response with this id; None if it was never stored, was removed, or is too old."""

    def holder(self, item_id: str) -> StoredResponse | None:
        """Return the stored response that has the item with this id in its own input or output; None if there
        is none.
        """


class _SharedLists:
    """Holds the lists of items of the stored responses, and counts the bytes of all lists. Equal lists are
    held and counted once: each response holds the lists of the responses that it continues, and if responses
    were read from the answer log, each has its own copy of the same conversation.

    A response holds these lists even after the earlier responses were dropped from the store. If the lists
    contain images, even a conversation of short texts may take much memory.
    """

    def __init__(self) -> None:
        self.total_bytes = 0
        self._held: dict[bytes, tuple[bytes, int]] = {}  # each list, and how many responses hold it

    def hold(self, lists: Iterable[bytes]) -> tuple[bytes, ...]:
        """Count the bytes of `lists`, the JSON lists of items of a stored response, and return the lists for
        the response to hold. A list that another stored response has too is not counted again, and is
        returned as the same object.
        """
        shared: list[bytes] = []
        for each in lists:
            held, holders = self._held.get(each, (each, 0))
            if not holders:
                self.total_bytes += len(held)
            self._held[held] = (held, holders + 1)
            shared.append(held)
        return tuple(shared)

    def release(self, lists: Iterable[bytes]) -> None:
        """Subtract the bytes of `lists` from `total_bytes`, because the response that held these JSON lists
        is removed from the store. A list that another stored response also holds still counts.
        """
        for each in lists:
            held, holders = self._held.pop(each)
            if holders > 1:
                self._held[held] = (held, holders - 1)
            else:
                self.total_bytes -= len(held)


class MemoryResponseStore:
    """Stores ended responses for `keep_s` seconds, and drops the oldest ones if all together exceed
    `max_bytes`. Running responses are never dropped; the gateway's queue limits their number.
    """

    def __init__(self, keep_s: float, now: Callable[[], float], max_bytes: int = MAX_STORED_BYTES) -> None:
        self._keep_s = keep_s
        self._now = now
        self._max_bytes = max_bytes
        self._responses: OrderedDict[str, StoredResponse] = OrderedDict()  # ended ones: the oldest end first
        self._sizes_bytes: dict[str, int] = {}
        self._own_bytes = 0
        self._lists = _SharedLists()
        self._response_of: dict[str, StoredResponse] = {}  # by the id of an item

    @property
    def keeps_any(self) -> bool:
        return self._keep_s > 0

    @property
    def size_bytes(self) -> int:
        """Return how many bytes all ended responses take together."""
        return self._own_bytes + self._lists.total_bytes

    def add(self, response: StoredResponse) -> None:
        self._drop_old()
        if self.keeps_any:
            self.remove(response.id)
            self._responses[response.id] = response
            self._note_items(response)

    def ended(self, response: StoredResponse) -> None:
        """Begin to count the bytes of a response that has ended, and drop the oldest responses if the limit
        is exceeded. Do nothing if the response was removed or replaced.
        """
        if self._responses.get(response.id) is not response:
            return
        response.ended_at = self._now()
        self._responses.move_to_end(response.id)
        self._note_items(response)
        self._sizes_bytes[response.id] = response.size_bytes
        self._own_bytes += response.size_bytes
        *earlier, response.items = self._lists.hold(response.lists)
        response.earlier = tuple(earlier)
        self._drop_old()

    def remove(self, response_id: str) -> None:
        response = self._responses.pop(response_id, None)
        if response is not None:
            if response_id in self._sizes_bytes:
                self._own_bytes -= self._sizes_bytes.pop(response_id)
                self._lists.release(response.lists)
            for item_id in response.item_ids:
                if self._response_of.get(item_id) is response:
                    del self._response_of[item_id]

    def find(self, response_id: str) -> StoredResponse | None:
        self._drop_old()
        return self._responses.get(response_id)

    def holder(self, item_id: str) -> StoredResponse | None:
        return self._response_of.get(item_id)

    def _note_items(self, response: StoredResponse) -> None:
        self._response_of |= dict.fromkeys(response.item_ids, response)

    def _drop_old(self) -> None:
        oldest_kept = self._now() - self._keep_s
        for response in list(self._responses.values()):
            if response.ended_at is None:
                continue
            if response.ended_at > oldest_kept and self.size_bytes <= self._max_bytes:
                break
            self.remove(response.id)


def unknown_response(response_id: str) -> NotFound:
    """Return the error for a client that asks for a response that is not stored."""
    message = (
        f"Response {response_id[:80]!r} was not found: it was never stored here, was deleted, or is older "
        "than mlx.keep_answers_s."
    )
    return NotFound("response_not_found", message, param="response_id")
