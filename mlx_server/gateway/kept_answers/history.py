"""The items that a request's client was given, in order: the engine's events, and keep-alives. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlx_server import protocol
from mlx_server.gateway.answer_log import Silence
from mlx_server.gateway.requests.ticket import TicketItem

Item = protocol.Token | protocol.Done | Silence
History = Sequence[tuple[int, Item]]
"""The items of all answers of one request, each with the number of its answer (from 0; OpenAI's `n`)."""

Record = Callable[[int, TicketItem | Silence], None]
"""Takes note of an item, or of the error that ends an answer, with the number of the answer."""


def events_of(history: History, number: int) -> list[protocol.Token | protocol.Done]:
    """Return the events of the engine that answer `number` has had."""
    return [item for answer, item in history if answer == number and not isinstance(item, Silence)]
