"""Read the newest blocks of each model from disk into RAM before requests need them, and then make caches of
the prompt that was used last. Only the MLX thread uses `Preloads`; its jobs may run on any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from mlx_server.engine.prompt_cache.block import Block, BlockRun
from mlx_server.engine.prompt_cache.disk.block_reader import BlockReader
from mlx_server.engine.prompt_cache.disk.disk_tier import DiskTier
from mlx_server.engine.prompt_cache.keys import PrefixKeys
from mlx_server.engine.prompt_cache.prefix_match import Tags
from mlx_server.engine.prompt_cache.preload_order import PreloadQueue, newest_chain, newest_of
from mlx_server.engine.prompt_cache.ram_tier import RamTier

PreloadJob = Callable[[], Callable[[], None] | None]
"""A job for another thread. It may return a function, which the MLX thread must call."""

PrepareRun = Callable[[BlockRun], Callable[[], None] | None]
"""Makes MLX's arrays of blocks, on any thread. Returns a function that keeps them ready for a request, which
only the MLX thread may call; None if it failed."""


@dataclass(eq=False)
class _OfModel:
    """The blocks and snapshots of one model that have yet to be read from disk into RAM. The jobs read
    `first` at first: the blocks, with the keys `chain`, of the prompt that was used last. Then `prepare`,
    which makes caches of these blocks, is called with them, and is set to None. At last, the jobs read
    `others`. Each file must contain the model's `tags`.
    """

    tags: Tags
    chain: Sequence[str]
    prepare: PrepareRun | None
    first: PreloadQueue
    others: PreloadQueue


class Preloads:
    """What has yet to be read into the RAM tier `ram` from the disk tier `disk`, by `reader`."""

    def __init__(self, ram: RamTier, disk: DiskTier, reader: BlockReader) -> None:
        self._ram, self._disk, self._reader = ram, disk, reader
        self._models: list[_OfModel] = []
        self._times_cleared = 0

    @property
    def are_queued(self) -> bool:
        """Return True if `next_job` may still return a job."""
        return bool(self._models)

    @property
    def are_urgent(self) -> bool:
        """Return True if the most recently used prompt of a model has yet to be made ready in RAM: its blocks
        have yet to be read, or caches have yet to be made of them. `next_job` returns jobs for such a prompt
        first, because it will probably be used next.
        """
        return any(model.prepare is not None for model in self._models)

    def add(self, prefixes: PrefixKeys, tags: Tags, prepare: PrepareRun) -> None:
        """Queue the blocks and snapshots of one model on disk: first the prompt that was used last, for which
        `prepare` is then called, then the others, the most recently used first. `prefixes` computes the
        model's keys.
        """
        if keys := newest_of(prefixes, self._disk.newest()):
            chain = newest_chain(prefixes, keys)
            queues = PreloadQueue(chain), PreloadQueue(keys)
            self._models.append(_OfModel(tags, chain, prepare if chain else None, *queues))

    def next_job(self, most_read_bytes: int, most_prepared_bytes: int) -> PreloadJob | None:
        """Return the next job; None if nothing is left to do. The job reads at most `most_read_bytes` from
        disk, or makes caches of at most `most_prepared_bytes`.
        """
        while self._models:
            model = next((model for model in self._models if model.prepare is not None), self._models[0])
            if keys := model.first.take(self._bytes_to_read, most_read_bytes):
                return partial(self._read, keys, model.tags)
            if (prepare := model.prepare) is not None:
                model.prepare = None
                run = self._whole_run(model.chain)
                if run is not None and run.nbytes <= most_prepared_bytes:
                    return partial(self._prepare, prepare, run, self._times_cleared)
            keys = [] if model.first.is_cut else model.others.take(self._bytes_to_read, most_read_bytes)
            if keys:
                return partial(self._read, keys, model.tags)
            self._models.remove(model)
        return None

    def clear(self) -> None:
        """Remove everything from the queue. If a job is making caches at this time, they are discarded."""
        self._models.clear()
        self._times_cleared += 1

    def _prepare(self, prepare: PrepareRun, run: BlockRun, times_cleared: int) -> Callable[[], None] | None:
        keep = prepare(run)

        def keep_unless_cleared() -> None:
            if keep is not None and self._times_cleared == times_cleared:
                keep()

        return keep_unless_cleared

    def _read(self, keys: list[str], tags: Tags) -> None:
        self._reader.preload(keys, tags)

    def _bytes_to_read(self, key: str) -> int | None:
        if key in self._ram or key not in self._disk or self._disk.pending(key):
            return None
        return self._disk.size_of(key)

    def _whole_run(self, chain: Sequence[str]) -> BlockRun | None:
        """Return the blocks with the consecutive keys `chain`. Return None if not all of them are in RAM, or
        if they cannot belong to one sequence.

        If some blocks are only on disk, caches of the other blocks would be of no use: the blocks in RAM and
        on disk together hold more of the prompt than such caches, so a request would use the blocks.
        """
        entries = [self._ram.get(key) for key in chain]
        blocks = tuple(entry.value for entry in entries if entry and isinstance(entry.value, Block))
        if not blocks or len(blocks) < len(chain) or not all(block.fits(blocks[0]) for block in blocks):
            return None
        return BlockRun(blocks)
