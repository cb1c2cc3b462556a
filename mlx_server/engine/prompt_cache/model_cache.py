"""One model's share of the prompt cache, which the model's runner uses on the MLX thread."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_server.engine.log import log_event
from mlx_server.engine.prompt_cache import mlx_arrays
from mlx_server.engine.prompt_cache.block import BlockRun
from mlx_server.engine.prompt_cache.entry import FORMAT
from mlx_server.engine.prompt_cache.keys import PrefixKeys
from mlx_server.engine.prompt_cache.prefix_match import PrefixMatch, RestoredPrefix
from mlx_server.engine.prompt_cache.ready_caches import ReadyCache
from mlx_server.engine.prompt_cache.store import BlockStore
from mlx_server.memory_forecast import kv_quantization
from mlx_server.memory_forecast.kv_quantization import KvQuantization


@dataclass
class StoredBlocks:
    """The keys of the whole blocks of one request that have been stored so far."""

    keys: list[str] = field(default_factory=list)


class ModelCache:
    """Restores and stores the keys and values of one model.

    `identity` identifies everything that determines the model's keys and values. `tags` are written into each
    file. With `kv`, keys and values are quantized. Data stored with another `kv` setting is never used.
    """

    def __init__(
        self, store: BlockStore, identity: str, tags: Mapping[str, str], kv: KvQuantization | None = None
    ) -> None:
        self._store, self._kv = store, kv
        kv_settings = kv_quantization.tags(kv)
        # Another release of mlx-lm may compute other values from the same weights, because its models get
        # corrected.
        made_by = f"mlx-lm {importlib.metadata.version('mlx-lm')}"
        settings = " ".join(f"{name}={value}" for name, value in kv_settings.items())
        whole = f"{identity} {settings} {made_by} format {FORMAT}"
        self._identity, self._closed = whole, False
        self._keys = PrefixKeys(whole)
        self._tags = {**tags, **kv_settings, "made_by": made_by, "identity": whole}

    def find(self, tokens: Sequence[int]) -> PrefixMatch | None:
        """Return the longest stored beginning of `tokens`; None if nothing is stored, or an error occurs,
        which is logged. The last token is never included, because a model needs one token of input.
        """
        try:
            return self._store.find(self._keys, tokens[:-1], self._tags)
        except Exception as error:
            _log_not_read(error)
            return None

    def preload(self) -> None:
        """Queue this model's blocks on disk to be read into RAM before requests need them. The prompt that
        was used last is read first, and caches of it will be ready for a request that continues it. An error
        is logged instead of raised.
        """
        try:
            self._store.preload(self._keys, self._tags, self._prepare)
        except Exception as error:
            _log_not_read(error)

    def _prepare(self, run: BlockRun) -> Callable[[], None] | None:
        """Copy the blocks of `run` into MLX's arrays, on any thread. Return a function that makes caches of
        the arrays and keeps them for a request that continues these tokens; only the MLX thread may call it.
        Return None if an error occurred, which is logged.
        """
        try:
            raw = mlx_arrays.concatenated(run)
        except Exception as error:
            _log_not_read(error)
            return None

        def keep() -> None:
            try:
                caches = mlx_arrays.caches_of_run(run, raw, self._kv)
            except Exception as error:
                _log_not_read(error)
            else:
                self.keep_ready(run.ids, caches)

        return keep

    def keep_ready(self, ids: Sequence[int], caches: Sequence[Any]) -> None:
        """Keep `caches`, which hold the keys and values of the tokens `ids`, for a request that continues
        these tokens (`take_ready`). They come from a request that has ended, or were made of blocks that were
        preloaded from disk. The caller must not use them any more.
        """
        if not self._closed:
            size = sum(cache.nbytes for cache in caches)
            self._store.keep_ready(ReadyCache(self._identity, tuple(ids), caches, size))

    def take_ready(self, match: PrefixMatch | None) -> tuple[list[Any], int]:
        """Return the caches of an ended request which hold the beginning of a prompt, and the number of its
        tokens in them; ([], 0) if there are none, or the blocks of `match` hold more of the prompt. `match`
        is what `find` has returned for the prompt.
        """
        taken = self._store.take_ready(match, self._identity) if match is not None else None
        if taken is None:
            return [], 0
        ready, tokens = taken
        for cache in ready.caches:
            cache.trim(len(ready.ids) - tokens)
        return list(ready.caches), tokens

    def close(self) -> None:
        """Drop the model's caches that are ready, and keep none from now on."""
        self._closed = True
        self._store.drop_ready(self._identity)

    def restore_job(self, match: PrefixMatch) -> Callable[[], RestoredPrefix]:
        """Return a job for another thread, which reads the match's blocks from disk. If an error occurs, the
        job logs it and returns an empty result.
        """

        def restore() -> RestoredPrefix:
            try:
                return self._store.restore(match)
            except Exception as error:
                _log_not_read(error)
                return RestoredPrefix()

        return restore

    def finish_restore(self, match: PrefixMatch, restored: RestoredPrefix) -> tuple[list[Any], int]:
        """Convert `restored`, which a restore job has read of the match `match`, to a key-value cache for
        each of the model's layers. Return the caches and the number of tokens in them; ([], 0) if nothing
        could be read.

        Count the restored blocks or the restored snapshot as hits, and the prompt's blocks that must be
        computed as misses.
        """
        self._store.record_restore(match, restored)
        if restored.value is None:
            return [], 0
        return mlx_arrays.caches_of(restored.value, self._kv), restored.value.tokens

    def store_computed(
        self, stored: StoredBlocks, tokens: Sequence[int], caches: Sequence[Any], row: int, *, whole: bool
    ) -> None:
        """Store the keys and values that a request has computed for `tokens`, which are in row `row` of
        `caches`. Only complete blocks are stored, and only if they are not stored already. `stored` has the
        keys of the request's blocks from earlier calls, and is updated.

        If the caches cannot be cut into blocks, store their whole state as a snapshot if `whole` is True;
        else store nothing.
        """
        if mlx_arrays.can_be_cut(caches):
            self._store_blocks(stored, tokens, caches, row)
        elif whole:
            self._store_snapshot(tokens, caches, row)

    def _store_blocks(
        self, stored: StoredBlocks, tokens: Sequence[int], caches: Sequence[Any], row: int
    ) -> None:
        before = len(stored.keys)
        stored.keys = self._keys.of_blocks(tokens, stored.keys)
        first = before + self._store.count_stored(stored.keys[before:])
        if first == len(stored.keys):
            return
        size = self._keys.block_tokens
        new_tokens = tokens[first * size : len(stored.keys) * size]
        blocks = mlx_arrays.cut(caches, row, new_tokens, first * size, size)
        new = dict(zip(stored.keys[first:], blocks, strict=True))
        self._store.insert(new, self._tags, stored.keys)

    def _store_snapshot(self, tokens: Sequence[int], caches: Sequence[Any], row: int) -> None:
        (key,) = self._keys.of_snapshots(tokens, [len(tokens)])
        if (
            len(tokens)
            and not self._store.count_stored([key])
            and (taken := mlx_arrays.snapshot(caches, row, tokens))
        ):
            self._store.insert({key: taken}, self._tags)


def _log_not_read(error: Exception) -> None:
    log_event("cache_not_read", cause=f"{type(error).__name__}: {error}")
