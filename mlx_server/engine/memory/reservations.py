"""How many tokens of each running request have memory reserved, and when a reservation is extended. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from mlx_server.protocol import Generate

UNLIMITED_ANSWER_TOKENS = 2048
"""How many tokens are reserved for an answer without `max_tokens`. Most answers are much shorter than the
context."""

EXTEND_BY_TOKENS = UNLIMITED_ANSWER_TOKENS // 2
EXTEND_BEFORE_TOKENS, EXTEND_EVERY_TOKENS = 256, 32
"""An answer without a limit tries to extend its reservation once at most EXTEND_BEFORE_TOKENS tokens of it
remain, and tries again after EXTEND_EVERY_TOKENS tokens.
"""


def reserved_answer_tokens(op: Generate, limit_tokens: int) -> int:
    """Return how many tokens to reserve for an answer of at most `limit_tokens`. An answer without
    `max_tokens` gets a smaller reservation, which is extended as it grows.
    """
    if op.max_tokens is not None and op.max_tokens >= 0:
        return limit_tokens
    return min(limit_tokens, max(UNLIMITED_ANSWER_TOKENS, len(op.emitted) + UNLIMITED_ANSWER_TOKENS // 4))


@dataclass
class Reservation:
    """The memory reserved for one request: for the attention keys and values of `tokens` tokens and, until
    the vision tower has computed the request's images, `tower_bytes` for the tower.

    A reservation without room for the whole answer is extended as the answer grows. If memory has no room for
    an extension, the next one is tried when prompt and answer together have `next_try_tokens` tokens, or use
    up the reservation.
    """

    tokens: int
    tower_bytes: int = 0
    next_try_tokens: int = 0

    def is_extension_due(self, tokens: int) -> bool:
        """Return whether to try now to extend the reservation of a request that has grown to `tokens` tokens.
        Each call that returns True counts as a try: the next one is due EXTEND_EVERY_TOKENS later, or when
        the reservation is used up.

        A request may grow by several tokens between two calls, because it accepts drafted tokens.
        """
        if tokens < self.tokens - EXTEND_BEFORE_TOKENS:
            return False
        if tokens < min(self.next_try_tokens, self.tokens):
            return False
        self.next_try_tokens = tokens + EXTEND_EVERY_TOKENS
        return True

    def extend(self, tokens: int) -> None:
        """Set the reservation to `tokens` tokens in all. Whether memory has room for them is not checked
        here: the caller must have checked it.
        """
        self.tokens, self.next_try_tokens = tokens, 0


class Reservations:
    """The reservations of the running requests, by model and request."""

    def __init__(self) -> None:
        self._by_model: dict[str, dict[str, Reservation]] = {}

    def add(self, model: str, request: str, reservation: Reservation) -> None:
        self._by_model.setdefault(model, {})[request] = reservation

    def get(self, model: str, request: str | None) -> Reservation | None:
        """Return the reservation of `request`, a request of `model`. Return None if it has no reservation, or
        if `request` is None, which stands for a new request.
        """
        return self._by_model.get(model, {}).get(request) if request is not None else None

    def retain(self, model: str, requests: Collection[str]) -> None:
        """Remove the reservations of those requests of `model` that are not in `requests`."""
        own = self._by_model.get(model, {})
        for gone in own.keys() - set(requests):
            del own[gone]

    def count(self, model: str) -> int:
        """Return how many requests of `model` have reservations."""
        return len(self._by_model.get(model, {}))

    def most_tokens(self, model: str) -> int:
        """Return the tokens of the largest reservation of `model`; 0 if there is none."""
        return max((one.tokens for one in self._by_model.get(model, {}).values()), default=0)

    def tower_bytes(self, model: str) -> int:
        """Return the bytes reserved for the vision tower of `model`: the most that any request needs, since
        the tower computes one image at a time.
        """
        return max((one.tower_bytes for one in self._by_model.get(model, {}).values()), default=0)
