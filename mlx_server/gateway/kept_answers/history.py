"""The items that a request's client has received, in order: the engine's events, and keep-alives. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlx_server import protocol
from mlx_server.gateway.answer_log import Silence
from mlx_server.gateway.requests.ticket import TicketItem

Item = protocol.Token | protocol.Done | Silence
History = Sequence[tuple[int, Item]]
"""The items of all answers of one request, as pairs (number of the answer, item). Numbers are from 0
(OpenAI's `n`)."""

Record = Callable[[int, TicketItem | Silence], None]
"""A function that records an item, or the error that ends an answer. Its first argument is the number of the
answer."""


def events_of(history: History, number: int) -> list[protocol.Token | protocol.Done]:
    """Return the engine's events, without keep-alives, of one of the answers to a request. `number` is the
    number of this answer, from 0: a request has several answers with OpenAI's `n` or with a list of prompts.
    """
    return [item for answer, item in history if answer == number and not isinstance(item, Silence)]
