"""All tiers: find and restore the beginning of a prompt, and insert computed keys and values.

The MLX thread calls all methods, except for `restore`, which reads files and may run on any thread. A file
that cannot be read, or does not hold what its name says, is dropped and counts as a miss.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from mlx_server.engine.log import log_event
from mlx_server.engine.prompt_cache.disk.block_reader import BlockReader
from mlx_server.engine.prompt_cache.disk.disk_tier import DiskTier
from mlx_server.engine.prompt_cache.disk.folder import BlockFolder
from mlx_server.engine.prompt_cache.entry import Entry, Value
from mlx_server.engine.prompt_cache.keys import PrefixKeys, as_parent, length_of
from mlx_server.engine.prompt_cache.prefix_match import (
    HitCounts,
    PrefixMatch,
    RestoredPrefix,
    Tags,
)
from mlx_server.engine.prompt_cache.prefix_restore import PrefixRestore
from mlx_server.engine.prompt_cache.preload_order import RAM_SHARE
from mlx_server.engine.prompt_cache.preloads import PreloadJob, Preloads, PrepareRun
from mlx_server.engine.prompt_cache.ram_tier import RamTier
from mlx_server.engine.prompt_cache.ready_caches import ReadyCache, ReadyCaches
from mlx_server.protocol import PromptCacheUse

_MAX_NEXT_KEYS = 4
"""How many of the blocks that follow the last matching one are compared with the rest of the prompt."""


READY_SHARE = 0.5
"""The share of `ram_bytes` that the caches of ended requests may take."""


class BlockStore:
    """The blocks of all models, in RAM and on disk, and the caches of ended requests (`ReadyCaches`). Without
    a `folder`, blocks are only in RAM. A limit of 0 bytes disables a tier.

    The caches of ended requests and the blocks in RAM have at most `ram_bytes` together.
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
        self._ram_bytes, self._ram = ram_bytes, RamTier(ram_bytes)
        self._ready = ReadyCaches(int(READY_SHARE * ram_bytes))
        self._reader = BlockReader(self._disk.read)
        self._preloads = Preloads(self._ram, self._disk, self._reader)

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
        return PrefixRestore(match, self._reader).run()

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
        self._mark_used(restored.used)

    # --- the caches of ended requests ---

    def keep_ready(self, cache: ReadyCache) -> None:
        """Keep the caches of a request that has ended, for a request that continues its tokens. All kept
        caches and the blocks in RAM share one limit, so the least recently used blocks are dropped from RAM
        if the kept caches need their place.
        """
        self._ready.put(cache)
        self._make_room_for_ready()

    def take_ready(self, match: PrefixMatch, model: str) -> tuple[ReadyCache, int] | None:
        """Remove from the store the caches of an ended request that hold the beginning of the match's prompt.
        Return them, and how many tokens of the prompt they hold. Return None and remove nothing if there are
        no such caches, or if the stored blocks hold more of the prompt. `model` is the identity with which
        the caches were kept.

        Count the prompt's blocks as hits and misses, like `record_restore`.
        """
        taken = self._ready.take(model, match.tokens, len(match.keys) * match.block_tokens)
        if taken is None:
            return None
        self._make_room_for_ready()
        size, tokens = match.block_tokens, taken[1]
        self.counts.hits_ram += -(-tokens // size)
        self.counts.misses += (len(match.tokens) - tokens) // size
        self._mark_used(match.keys)
        return taken

    def drop_ready(self, model: str) -> None:
        """Drop the caches of ended requests of one model."""
        self._ready.drop(model)
        self._make_room_for_ready()

    @property
    def ready_bytes(self) -> int:
        """Return how many bytes the caches of ended requests take. They are in MLX's memory."""
        return self._ready.nbytes

    # --- preload ---

    def preload(self, prefixes: PrefixKeys, tags: Tags, prepare: PrepareRun) -> None:
        """Queue the blocks and snapshots of one model on disk for `preload_job`: first those of the prompt
        that was used last, of which `prepare` then makes caches, then the others, the most recently used
        first. `prefixes` computes the model's keys. `tags` has the model's identity, which each file must
        contain.
        """
        self._preloads.add(prefixes, tags, prepare)

    @property
    def has_preloads(self) -> bool:
        """Return True if `preload` has queued blocks or snapshots that `preload_job` may still have to read
        from disk.
        """
        return self._preloads.are_queued

    @property
    def has_urgent_preloads(self) -> bool:
        """Return True if the most recently used prompt of a model has yet to be made ready in RAM.
        `preload_job` returns jobs for such a prompt first, because it will probably be used next.
        """
        return self._preloads.are_urgent

    def preload_job(self, available_bytes: int) -> PreloadJob | None:
        """Return a job for another thread; None if nothing is left to do. The job either reads the next
        queued blocks and snapshots from disk, or makes caches of the blocks of one prompt. It takes at most
        `available_bytes` of memory, and fills RAM only up to the share RAM_SHARE of the limit for RAM.

        What it has read is moved into RAM by the next call of this method, `find`, `insert` or
        `record_restore`, and is evicted before everything that was used. If the job returns a function, the
        MLX thread must call that.
        """
        self._apply_changes()
        most_read_bytes = int(RAM_SHARE * self._ram_bytes) - self._ram.total_bytes
        return self._preloads.next_job(
            min(available_bytes, most_read_bytes), min(available_bytes, self._ready.limit_bytes)
        )

    # --- insert ---

    def count_stored(self, keys: Sequence[str]) -> int:
        """Return how many of `keys` are stored, counted from the first key up to the first one that is not
        stored.
        """
        count = 0
        while count < len(keys) and (keys[count] in self._ram or keys[count] in self._disk):
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
        self._disk.abandon([key for key in unwritten if key not in self._ram])
        if waiting := {key: entry for key in unwritten if (entry := self._ram.get(key))}:
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
        """Return the sizes, limits and counts of all tiers, for status and metrics."""
        disk, counts = self._disk, self.counts
        return PromptCacheUse(
            ram_bytes=self._ram.total_bytes,
            ready_bytes=self._ready.nbytes,
            ram_limit_bytes=self._ram_bytes,
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
        """Free `size` bytes by dropping the oldest caches of ended requests, and then the least recently used
        blocks and snapshots in RAM, without changing the limit for RAM, and stop preloading.

        Dropped blocks and snapshots are still on disk, or must be computed again.
        """
        self._preloads.clear()
        ready_bytes = self._ready.nbytes
        self._ready.shrink(ready_bytes - size)
        self._make_room_for_ready()
        lacking_bytes = max(size - (ready_bytes - self._ready.nbytes), 0)
        self._disk.abandon(self._ram.shrink(max(self._ram.total_bytes - lacking_bytes, 0)))

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
            if key in self._disk:
                self._ram.insert_oldest(key, entry)

    def _drop_unreadable(self, missing: Sequence[str], broken: Sequence[str]) -> None:
        self.counts.missing += len(missing)
        self.counts.broken += len(broken)
        for key in (*missing, *broken):
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
        self._ram.clear()
        self._ready.clear()
        self._make_room_for_ready()
        self._preloads.clear()
        return True

    def _insert_into_ram(self, entries: Mapping[str, Entry], chain: Sequence[str] = ()) -> None:
        self._disk.abandon(self._ram.insert(entries, chain))

    def _make_room_for_ready(self) -> None:
        """Set the limit of the RAM tier to the bytes that the caches of ended requests leave of the limit for
        RAM. Blocks that exceed the new limit are dropped.
        """
        self._disk.abandon(self._ram.resize(self._ram_bytes - self._ready.nbytes))

    def _mark_used(self, keys: Sequence[str]) -> None:
        self._ram.use(keys)
        self._disk.mark_used(keys)

    def _value(self, key: str) -> Value | None:
        entry = self._ram.get(key) or self._disk.pending(key)
        return entry.value if entry else None

    def _group(self, name: str) -> list[str]:
        return list(dict.fromkeys([*self._ram.following(name), *self._disk.group(name)]))
