"""One model's share of the prompt cache, as its runner uses it. Lives in the MLX thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_server.engine.prompt_cache import kv
from mlx_server.engine.prompt_cache.keys import PrefixKeys
from mlx_server.engine.prompt_cache.store import Find, Gathered, Store


@dataclass
class Kept:
    """How much of one request is kept: the keys of its whole blocks so far."""

    keys: list[str] = field(default_factory=list)


class ModelCache:
    """`identity` is all that makes the model's values what they are; `tags` are what a file says of them."""

    def __init__(self, store: Store, identity: str, tags: Mapping[str, str]) -> None:
        self._store = store
        self._keys = PrefixKeys(identity)
        self._tags = {**tags, "identity": identity}

    def find(self, tokens: Sequence[int]) -> Find | None:
        """What begins `tokens` and leaves at least one: a model that is fed nothing answers nothing."""
        return self._store.find(self._keys, tokens[:-1], self._tags)

    def gathering(self, find: Find) -> Callable[[], Gathered]:
        """The reading, for another thread."""
        return lambda: self._store.gather(find)

    def take(self, find: Find, gathered: Gathered) -> tuple[list[Any], int]:
        """Caches for the model's layers, and how many tokens they hold: none where nothing could be had."""
        self._store.learn(find, gathered)
        if gathered.block is None:
            return [], 0
        return list(kv.caches_of(gathered.block)), gathered.block.tokens

    def keep(self, kept: Kept, tokens: Sequence[int], caches: Sequence[Any], row: int) -> None:
        """Takes in what `caches` hold of `tokens` in their `row` and was not kept yet, in whole blocks."""
        if not kv.can_be_cut(caches):
            return
        before = len(kept.keys)
        kept.keys = self._keys.of_blocks(tokens, kept.keys)
        first = before + self._store.kept(kept.keys[before:])
        if first == len(kept.keys):
            return
        size = self._keys.block_tokens
        block = kv.cut(caches, row, tokens[first * size : len(kept.keys) * size], first * size)
        self._store.keep(dict(zip(kept.keys[first:], block.split(size), strict=True)), self._tags)
