"""One model's share of the prompt cache, as its runner uses it. Lives in the MLX thread."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_server.engine.kv import kv_quantization
from mlx_server.engine.kv.kv_quantization import KvQuantization
from mlx_server.engine.log import log_event
from mlx_server.engine.prompt_cache import mlx_arrays
from mlx_server.engine.prompt_cache.entry import FORMAT
from mlx_server.engine.prompt_cache.find import Find, Gathered
from mlx_server.engine.prompt_cache.keys import PrefixKeys
from mlx_server.engine.prompt_cache.store import Store


@dataclass
class Kept:
    """How much of one request is kept: the keys of its whole blocks so far."""

    keys: list[str] = field(default_factory=list)


class ModelCache:
    """`identity` is all that makes the model's values what they are; `tags` are what a file says of them.

    With `kv` they are quantized: values of another setting are another model's.
    """

    def __init__(
        self, store: Store, identity: str, tags: Mapping[str, str], kv: KvQuantization | None = None
    ) -> None:
        self._store, self._kv = store, kv
        kv_settings = kv_quantization.tags(kv)
        # The same weights may compute something else in another release of mlx-lm: it mends its models.
        made_by = f"mlx-lm {importlib.metadata.version('mlx-lm')}"
        settings = " ".join(f"{name}={value}" for name, value in kv_settings.items())
        whole = f"{identity} {settings} {made_by} format {FORMAT}"
        self._keys = PrefixKeys(whole)
        self._tags = {**tags, **kv_settings, "made_by": made_by, "identity": whole}

    def find(self, tokens: Sequence[int]) -> Find | None:
        """What begins `tokens` and leaves at least one: a model that is fed nothing answers nothing."""
        return self._store.find(self._keys, tokens[:-1], self._tags)

    def gathering(self, find: Find) -> Callable[[], Gathered]:
        """The reading, for another thread. It never raises: whatever goes wrong is a miss."""

        def gather() -> Gathered:
            try:
                return self._store.gather(find)
            except Exception as error:
                log_event("cache_not_read", cause=f"{type(error).__name__}: {error}")
                return Gathered()

        return gather

    def take(self, find: Find, gathered: Gathered) -> tuple[list[Any], int]:
        """Caches for the model's layers, and how many tokens they hold: none where nothing could be had."""
        self._store.learn(find, gathered, self._tags)
        if gathered.value is None:
            return [], 0
        return mlx_arrays.caches_of(gathered.value, self._kv), gathered.value.tokens

    def keep(
        self, kept: Kept, tokens: Sequence[int], caches: Sequence[Any], row: int, *, whole: bool
    ) -> None:
        """Takes in what `caches` hold of `tokens` in their `row`: whole blocks that were not kept yet.

        Where they cannot be cut, a snapshot, and only if this is the moment for a `whole` one.
        """
        if mlx_arrays.can_be_cut(caches):
            self._keep_blocks(kept, tokens, caches, row)
        elif whole:
            self._keep_snapshot(tokens, caches, row)

    def _keep_blocks(self, kept: Kept, tokens: Sequence[int], caches: Sequence[Any], row: int) -> None:
        before = len(kept.keys)
        kept.keys = self._keys.of_blocks(tokens, kept.keys)
        first = before + self._store.kept(kept.keys[before:])
        if first == len(kept.keys):
            return
        size = self._keys.block_tokens
        new_tokens = tokens[first * size : len(kept.keys) * size]
        blocks = mlx_arrays.cut(caches, row, new_tokens, first * size, size)
        new = dict(zip(kept.keys[first:], blocks, strict=True))
        self._store.keep(new, self._tags, kept.keys)

    def _keep_snapshot(self, tokens: Sequence[int], caches: Sequence[Any], row: int) -> None:
        (key,) = self._keys.of_snapshots(tokens, [len(tokens)])
        if (
            len(tokens)
            and not self._store.kept([key])
            and (taken := mlx_arrays.snapshot(caches, row, tokens))
        ):
            self._store.keep({key: taken}, self._tags)
