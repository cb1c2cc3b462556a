"""The topmost tier of the prompt cache: the key-value caches of ended requests, which stay in MLX's memory as
they are. A request that continues such a prompt and its answer uses the arrays without a copy. Pure.

Of a conversation, usually each turn continues the one before. Reading 6,000 tokens of a small model from the
RAM tier copies 270 MB, which takes three times as long as computing a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlx_server.engine.prompt_cache.block import common_prefix_length

LEAST_SHARE = 0.5
"""A request may use caches only if it continues at least this share of their tokens. The arrays keep their
size, so a request that uses a small beginning of them would take much more memory than was reserved for it,
and nothing would be left for the conversation to which they belong.
"""


@dataclass(frozen=True)
class ReadyCache:
    """The key-value caches of one ended request, one for each of the model's layers. They hold the keys and
    values of the tokens `ids` in `nbytes` bytes. `model` identifies the model and its settings.
    """

    model: str
    ids: tuple[int, ...]
    caches: Sequence[Any]
    nbytes: int


class ReadyCaches:
    """The caches of ended requests, up to `limit_bytes`. The caches that were used the longest time ago are
    dropped first. A limit of 0 keeps none.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._held: list[ReadyCache] = []  # the oldest first

    @property
    def nbytes(self) -> int:
        """Return how many bytes all caches take."""
        return sum(held.nbytes for held in self._held)

    def put(self, new: ReadyCache) -> None:
        """Keep the caches `new`, unless they are larger than the limit. If other caches of the same model
        already hold all tokens of `new`, do not keep `new`, but mark those caches as used. Then drop the
        model's caches whose tokens are all a beginning of the tokens in the kept caches, and the least
        recently used caches beyond the limit.
        """
        if not new.ids or new.nbytes > self.limit_bytes:
            return
        own = [held for held in self._held if held.model == new.model]
        longest = next((held for held in own if _begins_with(held.ids, new.ids)), new)
        self._held = [
            held
            for held in self._held
            if held is not longest and (held.model != new.model or not _begins_with(longest.ids, held.ids))
        ]
        self._held.append(longest)
        self.shrink(self.limit_bytes)

    def shrink(self, most_bytes: int) -> None:
        """Drop the oldest caches until the others take at most `most_bytes`."""
        while self._held and self.nbytes > most_bytes:
            del self._held[0]

    def take(self, model: str, ids: Sequence[int], at_least: int) -> tuple[ReadyCache, int] | None:
        """Remove from this object the caches of `model` that hold the most of the first tokens of `ids`.
        Return them, and how many of these tokens they hold.

        Caches are left out if they hold fewer than `at_least` of these tokens, or if these tokens are less
        than the share LEAST_SHARE of all tokens in the caches. Return None if this applies to all caches of
        the model.
        """
        wanted = tuple(ids)
        best, most = None, max(at_least, 1) - 1
        for held in self._held:
            if held.model != model:
                continue
            same = common_prefix_length(held.ids, wanted)
            if same > most and same >= LEAST_SHARE * len(held.ids):
                best, most = held, same
        if best is None:
            return None
        self._held = [held for held in self._held if held is not best]
        return best, most

    def drop(self, model: str) -> None:
        """Drop the caches of one model."""
        self._held = [held for held in self._held if held.model != model]

    def clear(self) -> None:
        """Drop all caches."""
        self._held = []


def _begins_with(whole: tuple[int, ...], beginning: tuple[int, ...]) -> bool:
    return whole[: len(beginning)] == beginning
