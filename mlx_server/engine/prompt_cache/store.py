"""Both tiers, RAM and disk: find and restore the beginning of a prompt, and insert computed keys and values.

The MLX thread calls all methods, except for `restore`, which reads files and may run on any thread. A file
that cannot be read, or does not hold what its name says, is dropped and counts as a miss.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from mlx_server.engine.log import log_event
from mlx_server.engine.prompt_cache.block import Block, BlockRun, common_prefix_length
from mlx_server.engine.prompt_cache.disk.block_reader import BlockReader
from mlx_server.engine.prompt_cache.disk.disk_tier import DiskTier
from mlx_server.engine.prompt_cache.disk.folder import BlockFolder
from mlx_server.engine.prompt_cache.entry import Entry, Value
from mlx_server.engine.prompt_cache.keys import PrefixKeys, as_parent, length_of, parent_of
from mlx_server.engine.prompt_cache.lru import Lru
from mlx_server.engine.prompt_cache.prefix_match import (
    HitCounts,
    PrefixMatch,
    RestoredPrefix,
    RestoreProgress,
    Tags,
)
from mlx_server.engine.prompt_cache.preload import RAM_SHARE, PreloadQueue, newest_of
from mlx_server.engine.prompt_cache.snapshot import Snapshot
from mlx_server.protocol import PromptCacheUse

_MAX_NEXT_KEYS = 4
"""How many of the blocks that follow the last matching one are compared with the rest of the prompt."""


class BlockStore:
    """The blocks of all models, in RAM and on disk. Without a `folder`, blocks are only in RAM. A limit of 0
    bytes disables a tier.
    """

    def __init__(
        self,
        folder: BlockFolder | None,
        ram_bytes: int,
        disk_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = HitCounts()
        self._disk = DiskTier(folder, disk_bytes, clock)
        self._ram, self._entries = Lru(ram_bytes, parent_of), dict[str, Entry]()
        self._reader = BlockReader(self._disk.read)
        self._preloads: list[tuple[PreloadQueue, Tags]] = []  # by model

    # --- find and restore ---

    def find(self, prefixes: PrefixKeys, tokens: Sequence[int], tags: Tags) -> PrefixMatch | None:
        """Return what RAM and disk hold for the beginning of the prompt `tokens`: the longest run of blocks
        from the first token on, the snapshots (a snapshot is a model's whole state after some tokens), and a
        few blocks that followed the end of this run in other prompts. The first tokens of such a block may
        equal the prompt's next tokens. If there is nothing, count the prompt's blocks as misses and return
        None.

        `prefixes` computes the keys under which the blocks and snapshots of the model are stored. `tags` has
        the model's identity: `restore` counts a file that does not contain it as damaged.
        """
        self._apply_changes()
        keys = prefixes.of_blocks(tokens)
        found = tuple(keys[: self.count_stored(keys)])
        next_keys = tuple(self._group(as_parent(found[-1] if found else prefixes.root))[:_MAX_NEXT_KEYS])
        lengths = {length_of(key) for key in self._group(prefixes.snapshots)} - {0}
        snapshots = tuple(key for key in prefixes.of_snapshots(tokens, lengths) if self.count_stored([key]))
        if not found and not next_keys and not snapshots:
            self.counts.misses += len(keys)
            return None
        held = {key: value for key in (*found, *next_keys, *snapshots) if (value := self._value(key))}
        whole, size = tuple(tokens), prefixes.block_tokens
        return PrefixMatch(whole, size, found, next_keys, snapshots, held, tags)

    def restore(self, match: PrefixMatch) -> RestoredPrefix:
        """Read and return the match's longest readable snapshot, or else its blocks up to the first one that
        cannot be read.
        """
        progress = RestoreProgress(match)
        for key in match.snapshots:
            length = length_of(key)
            value = self._get(key, progress, match.tokens[:length])
            if isinstance(value, Snapshot):
                return progress.result(value)
        blocks = self._matching_blocks(progress)
        return progress.result(BlockRun(tuple(blocks)) if blocks else None)

    def _matching_blocks(self, progress: RestoreProgress) -> list[Block]:
        match, blocks = progress.match, list[Block]()
        size = match.block_tokens
        for at, key in enumerate(match.keys):
            block = self._get(key, progress, match.tokens[at * size : (at + 1) * size])
            if not isinstance(block, Block) or (blocks and not block.fits(blocks[0])):
                return blocks
            blocks.append(block)
        part = self._partial_block(progress)
        if part and (not blocks or part.fits(blocks[0])):
            blocks.append(part)
        return blocks

    def _partial_block(self, progress: RestoreProgress) -> Block | None:
        """Compare the rest of the prompt, after its last matching block, with the stored blocks that follow
        that block (`next_keys` of `progress.match`). Choose the block that shares the most first tokens with
        the rest, and return a copy of this shared beginning; None if no block shares even the first token.
        """
        match = progress.match
        rest = match.tokens[len(match.keys) * match.block_tokens :]
        best: Block | None = None
        length, used = 0, list(progress.used)
        for key in match.next_keys:
            block = self._get(key, progress)
            same = common_prefix_length(block.ids, rest) if isinstance(block, Block) else 0
            if isinstance(block, Block) and same > length:
                best, length, progress.used = block, same, [*used, key]
        if best is None:
            progress.used = used  # the following blocks were compared but are not used
        return best.head(length) if best else None

    def _get(self, key: str, progress: RestoreProgress, ids: Sequence[int] | None = None) -> Value | None:
        """Return the block or snapshot of `key` from memory or disk; None if it cannot be read, or holds
        other tokens than `ids`. The key is added to the used, missing or broken keys of `progress`.
        """
        match = progress.match
        value = match.held.get(key)
        if value is None:
            value = self._reader.get(key, match.tags, progress.missing, progress.broken)
        if value is not None and ids is not None and value.ids != tuple(ids):
            log_event("cache_block_dropped", cause="it holds other tokens", key=key)
            progress.broken.append(key)
            return None
        if value is not None:
            progress.used.append(key)
        return value

    def record_restore(self, match: PrefixMatch, restored: RestoredPrefix) -> None:
        """Update the counts and both tiers after `restore(match)` has returned `restored`. Count the restored
        blocks or the restored snapshot as hits, and the prompt's other blocks, which must be computed, as
        misses. Mark the keys `restored.used` as recently used, and drop the blocks and snapshots that could
        not be read.
        """
        self._apply_changes()
        in_ram = sum(key in match.held for key in restored.used)
        self.counts.hits_ram += in_ram
        self.counts.hits_disk += len(restored.used) - in_ram
        restored_tokens = restored.value.tokens if restored.value is not None else 0
        self.counts.misses += (len(match.tokens) - restored_tokens) // match.block_tokens
        self._drop_unreadable(restored.missing, restored.broken)
        self._ram.use(restored.used)
        self._disk.mark_used(restored.used)

    # --- preload ---

    def preload(self, prefixes: PrefixKeys, tags: Tags) -> None:
        """Queue the blocks and snapshots of one model on disk for `preload_job`, the most recently used
        first. `prefixes` computes the model's keys. `tags` has the model's identity, which each file must
        contain.
        """
        if keys := newest_of(prefixes, self._disk.newest()):
            self._preloads.append((PreloadQueue(keys), tags))

    @property
    def has_preloads(self) -> bool:
        """Return True if `preload` has queued blocks or snapshots that `preload_job` may still have to read
        from disk.
        """
        return bool(self._preloads)

    def preload_job(self, available_bytes: int) -> Callable[[], None] | None:
        """Return a job for another thread that reads the next queued blocks and snapshots from disk; None if
        nothing is left. It reads at most `available_bytes`, and no more than fits until RAM_SHARE of the RAM
        limit is in use.

        What it has read is moved into RAM by the next call of this method, `find`, `insert` or
        `record_restore`, and is evicted before everything that was used.
        """
        self._apply_changes()
        while self._preloads:
            queue, tags = self._preloads[0]
            share_bytes = int(RAM_SHARE * self._ram.limit_bytes) - self._ram.total_bytes
            if keys := queue.take(self._bytes_to_preload, min(available_bytes, share_bytes)):
                return partial(self._reader.preload, keys, tags)
            del self._preloads[0]
        return None

    def _bytes_to_preload(self, key: str) -> int | None:
        if key in self._entries or key not in self._disk or self._disk.pending(key):
            return None
        return self._disk.size_of(key)

    # --- insert ---

    def count_stored(self, keys: Sequence[str]) -> int:
        """Return how many of `keys` are stored, counted from the first key up to the first one that is not
        stored.
        """
        count = 0
        while count < len(keys) and (keys[count] in self._entries or keys[count] in self._disk):
            count += 1
        return count

    def insert(self, values: Mapping[str, Value], tags: Tags, chain: Sequence[str] = ()) -> None:
        """Insert `values`, blocks or one snapshot by key, into RAM, and queue them to be written to disk.
        `chain` has the keys of all blocks of the prompt so far, the last of which are those of `values`; it
        is empty for a snapshot. `tags` are the model's identity, name and settings, which are stored in each
        file.
        """
        self._apply_changes()
        entries = {key: Entry(value, tags) for key, value in values.items()}
        self._insert_into_ram(entries, chain)
        self._disk.put(entries, chain)

    def retry_unwritten(self) -> None:
        """Queue for writing again the blocks that could not be written, or did not fit into the queue. The
        scheduler calls this while it is idle.
        """
        self._forget_cleared()
        unwritten = self._disk.unwritten()
        self._disk.abandon([key for key in unwritten if key not in self._entries])
        if waiting := {key: entry for key in unwritten if (entry := self._entries.get(key))}:
            self._disk.put(waiting, ())

    def persist(self, timeout_s: float) -> int:
        """Write all blocks that are not on disk yet, within `timeout_s` seconds. Return how many were
        written.
        """
        before, until = self._disk.written.blocks, time.monotonic() + timeout_s
        while True:
            at = self._disk.written.blocks
            self.retry_unwritten()
            done = self._disk.flush(max(until - time.monotonic(), 0.0))
            if not done or self._disk.written.blocks == at:
                return self._disk.written.blocks - before

    def close(self) -> None:
        self._disk.close()

    @property
    def ram_bytes(self) -> int:
        return self._ram.total_bytes

    @property
    def disk_bytes(self) -> int:
        return self._disk.total_bytes

    @property
    def written_bytes(self) -> int:
        return self._disk.written.bytes

    def usage(self) -> PromptCacheUse:
        """Return the sizes, limits and counts of both tiers, for status and metrics."""
        disk, counts = self._disk, self.counts
        return PromptCacheUse(
            ram_bytes=self._ram.total_bytes,
            ram_limit_bytes=self._ram.limit_bytes,
            disk_bytes=disk.total_bytes,
            disk_limit_bytes=disk.limit_bytes,
            hits_ram=counts.hits_ram,
            hits_disk=counts.hits_disk,
            misses=counts.misses,
            gone=counts.missing,
            broken=counts.broken,
            written=disk.written.blocks,
            written_bytes=disk.written.bytes,
            not_written=disk.written.failed,
        )

    def free_ram(self, size: int) -> None:
        """Free `size` bytes of RAM by dropping the least recently used values, without changing the limit for
        RAM, and stop preloading.

        The dropped values are still on disk, or must be computed again.
        """
        self._preloads.clear()
        limit_bytes = self._ram.limit_bytes
        self.set_ram_limit(max(self._ram.total_bytes - max(size, 0), 0))
        self.set_ram_limit(limit_bytes)

    def set_ram_limit(self, limit_bytes: int) -> None:
        """Set the limit for RAM, and drop the least recently used blocks and snapshots that exceed it.
        Dropped ones that are not on disk must be computed again when a prompt needs them.
        """
        self._drop_from_ram(self._ram.resize(limit_bytes))

    # --- internal ---

    def _apply_changes(self) -> None:
        """Forget everything if the folder was deleted. Otherwise, move what other threads have read from disk
        into RAM, and drop the blocks and snapshots whose files they could not read.
        """
        read = self._reader.take()
        if self._forget_cleared():
            return
        self._drop_unreadable(read.missing, read.broken)
        for key, entry in reversed(read.restored.items()):
            if key in self._disk:
                self._insert_into_ram({key: entry})
        for key, entry in read.preloaded.items():
            if key in self._disk and self._ram.add_oldest(key, entry.nbytes):
                self._entries[key] = entry

    def _drop_unreadable(self, missing: Sequence[str], broken: Sequence[str]) -> None:
        self.counts.missing += len(missing)
        self.counts.broken += len(broken)
        for key in (*missing, *broken):
            self._entries.pop(key, None)
            self._ram.discard(key)
        self._disk.discard(missing, remove=False)
        self._disk.discard(broken, remove=True)

    def _forget_cleared(self) -> bool:
        """If `vestal cache clear` has deleted the folder, clear RAM, too. Return True if the folder was
        deleted.
        """
        if not self._disk.was_cleared():
            return False
        log_event("cache_cleared", cause="its folder was removed")
        self._entries.clear()
        self._ram.clear()
        self._preloads.clear()
        return True

    def _insert_into_ram(self, entries: Mapping[str, Entry], chain: Sequence[str] = ()) -> None:
        self._entries.update(entries)
        self._drop_from_ram(self._ram.add({key: entry.nbytes for key, entry in entries.items()}, chain))

    def _drop_from_ram(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._entries.pop(key, None)
        self._disk.abandon(keys)

    def _value(self, key: str) -> Value | None:
        entry = self._entries.get(key) or self._disk.pending(key)
        return entry.value if entry else None

    def _group(self, name: str) -> list[str]:
        return list(dict.fromkeys([*self._ram.group(name), *self._disk.group(name)]))
