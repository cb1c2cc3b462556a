"""The ids of items, and what a request's body refers to by such ids."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from functools import cached_property

import msgspec

from mlx_server.gateway.dialects.responses.input_items import Item

NO_ITEMS = b"[]"
_ITEM_ID = re.compile(r"[a-z]+_([A-Za-z0-9_-]{1,80})_(?:in)?[0-9]+", re.A)


def response_of_item(item_id: str) -> str | None:
    """Return the id of the response to which the item with this id belongs; None if the id does not tell.

    The ids of the items of response `resp_X` are `msg_X_0`, `fc_X_1` and so on in its output, and `msg_X_in0`
    in its input, unless the client has given an input item an id of its own. So a gateway finds an item in
    the answer log, which knows only responses.
    """
    match = _ITEM_ID.fullmatch(item_id)
    return None if match is None else f"resp_{match[1]}"


def input_ids(suffix: str) -> Callable[[str], str]:
    """Return a function that makes the ids of the input items of response `resp_<suffix>`. The function takes
    the beginning of an id, which stands for the item's type.
    """
    numbers = itertools.count()
    return lambda prefix: f"{prefix}_{suffix}_in{next(numbers)}"


class References:
    """What a request's body refers to.

    `earlier` is the conversation that it continues: for each of its responses, oldest first, a JSON list of
    the input items and one of the output items. `items` is a JSON list of the stored items that the body's
    input names by their ids.
    """

    def __init__(self, earlier: Iterable[bytes] = (), items: bytes = NO_ITEMS) -> None:
        self.earlier = tuple(earlier)
        self._items = items

    @classmethod
    def unpacked(cls, parts: tuple[bytes, ...]) -> References:
        """Return the references from the answer log, where they were written as `packed`."""
        return cls(parts[1:], *parts[:1])

    @property
    def packed(self) -> tuple[bytes, ...]:
        """Return the references as the answer log stores them; an empty tuple if there are none."""
        return (self._items, *self.earlier) if self.earlier or self._items != NO_ITEMS else ()

    @property
    def size_bytes(self) -> int:
        return len(self._items) + sum(map(len, self.earlier))

    def item(self, item_id: str) -> Item | None:
        """Return the item with this id; None if the body does not refer to it or it was not found. Any thread
        may call this method.
        """
        return self._by_id.get(item_id)

    @cached_property
    def _by_id(self) -> dict[str, Item]:
        return {item["id"]: item for item in msgspec.json.decode(self._items)}
