"""Both levels: finds the longest run of blocks that begins a prompt, and keeps what was computed.

One thread (MLX's) calls all methods but `gather`, which does the reading and may run in any. A file that
cannot be read, or is not what its name says, is dropped and missed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from mlx_server.engine.log import log_event
from mlx_server.engine.prompt_cache.blob import Corrupt
from mlx_server.engine.prompt_cache.block import Block, Run, common
from mlx_server.engine.prompt_cache.disk import Disk
from mlx_server.engine.prompt_cache.entry import Entry, Value, unpack
from mlx_server.engine.prompt_cache.find import Counts, Find, Gathered, Reading, Tags
from mlx_server.engine.prompt_cache.folder import Folder
from mlx_server.engine.prompt_cache.keys import PrefixKeys, as_parent, length_of, parent_of
from mlx_server.engine.prompt_cache.lru import Lru
from mlx_server.engine.prompt_cache.snapshot import Snapshot
from mlx_server.protocol import PromptCacheUse

_NEXT_TRIED = 4
"""So many of the blocks that may go on from the last whole one are looked at."""


class Store:
    """`folder` None: RAM only. A limit of 0 switches its level off."""

    def __init__(
        self,
        folder: Folder | None,
        ram_bytes: int,
        disk_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = Counts()
        self._disk = Disk(folder, disk_bytes, clock)
        self._ram, self._entries = Lru(ram_bytes, parent_of), dict[str, Entry]()
        self._lock = threading.Lock()
        self._read_ahead: dict[str, tuple[Value, str]] = {}  # by `gather`; RAM's at the next call

    # --- finding ---

    def find(self, prefixes: PrefixKeys, tokens: Sequence[int], tags: Tags) -> Find | None:
        """What there is of `tokens`; None for nothing."""
        self._refresh(tags)
        keys = prefixes.of_blocks(tokens)
        found = tuple(keys[: self.kept(keys)])
        next_keys = tuple(self._group(as_parent(found[-1] if found else prefixes.root))[:_NEXT_TRIED])
        lengths = {length_of(key) for key in self._group(prefixes.snapshots)} - {0}
        snapshots = tuple(key for key in prefixes.of_snapshots(tokens, lengths) if self.kept([key]))
        if not found and not next_keys and not snapshots:
            self.counts.misses += len(keys)
            return None
        held = {key: value for key in (*found, *next_keys, *snapshots) if (value := self._value(key))}
        whole, size = tuple(tokens), prefixes.block_tokens
        return Find(whole, size, found, next_keys, snapshots, held, tags["identity"])

    def gather(self, find: Find) -> Gathered:
        """Reads what is on disk, up to the first block that cannot be had."""
        reading = Reading(find)
        for key in find.snapshots:
            length = length_of(key)
            value = self._have(key, reading, find.tokens[:length])
            if isinstance(value, Snapshot):
                return reading.done(value)
        blocks = self._run(reading)
        return reading.done(Run(tuple(blocks)) if blocks else None)

    def _run(self, reading: Reading) -> list[Block]:
        find, blocks = reading.find, list[Block]()
        size = find.block_tokens
        for at, key in enumerate(find.keys):
            block = self._have(key, reading, find.tokens[at * size : (at + 1) * size])
            if not isinstance(block, Block) or (blocks and not block.fits(blocks[0])):
                return blocks
            blocks.append(block)
        part = self._part(reading)
        if part and (not blocks or part.fits(blocks[0])):
            blocks.append(part)
        return blocks

    def _part(self, reading: Reading) -> Block | None:
        """The begin of a block that follows the last and goes on as the prompt does, for a while."""
        find = reading.find
        rest = find.tokens[len(find.keys) * find.block_tokens :]
        best: Block | None = None
        length, used = 0, list(reading.used)
        for key in find.next_keys:
            block = self._have(key, reading)
            same = common(block.ids, rest) if isinstance(block, Block) else 0
            if isinstance(block, Block) and same > length:
                best, length, reading.used = block, same, [*used, key]
        if best is None:
            reading.used = used  # looked at only
        return best.head(length) if best else None

    def _have(self, key: str, reading: Reading, ids: Sequence[int] | None = None) -> Value | None:
        """From memory or disk; None where it cannot be had, or does not hold `ids`."""
        find = reading.find
        value = find.held.get(key)
        if value is None:
            with self._lock:  # read a moment ago, for another request
                value, _ = self._read_ahead.get(key, (None, ""))
        if value is None:
            value = self._read(key, reading)
        if value is not None and ids is not None and value.ids != tuple(ids):
            log_event("cache_block_dropped", cause="it is of other tokens", key=key)
            reading.broken.append(key)
            return None
        if value is not None:
            reading.used.append(key)
        return value

    def _read(self, key: str, reading: Reading) -> Value | None:
        identity = reading.find.identity
        try:
            value = unpack(key, self._disk.read(key), identity)
        except FileNotFoundError:  # another engine's limit, or `vestal cache clear`
            reading.missing.append(key)
        except (OSError, Corrupt) as error:
            log_event("cache_block_dropped", cause=str(error), key=key)
            reading.broken.append(key)
        else:
            with self._lock:
                self._read_ahead[key] = value, identity
            return value
        return None

    def learn(self, find: Find, gathered: Gathered, tags: Tags) -> None:
        """What `gather` has found out: what was of use, and what cannot be had."""
        self._refresh(tags)
        in_ram = sum(key in find.held for key in gathered.used)
        self.counts.hits_ram += in_ram
        self.counts.hits_disk += len(gathered.used) - in_ram
        had = gathered.value.tokens if gathered.value is not None else 0
        self.counts.misses += (len(find.tokens) - had) // find.block_tokens
        self.counts.missing += len(gathered.missing)
        self.counts.broken += len(gathered.broken)
        for key in (*gathered.missing, *gathered.broken):
            self._entries.pop(key, None)
            self._ram.discard(key)
        self._disk.forget(gathered.missing, remove=False)
        self._disk.forget(gathered.broken, remove=True)
        self._ram.use(gathered.used)
        self._disk.use(gathered.used)

    # --- keeping ---

    def kept(self, keys: Sequence[str]) -> int:
        """How many of `keys` are kept already, from the first on."""
        kept = 0
        while kept < len(keys) and (keys[kept] in self._entries or keys[kept] in self._disk):
            kept += 1
        return kept

    def keep(self, values: Mapping[str, Value], tags: Tags, chain: Sequence[str] = ()) -> None:
        """Takes values in, in both levels: the ends of `chain`."""
        self._refresh(tags)
        entries = {key: Entry(value, tags) for key, value in values.items()}
        self._hold(entries, chain)
        self._disk.put(entries, chain)

    def write_back(self) -> None:
        """There is time: what could not be written when it came is."""
        self._forget_cleared()
        left_out = self._disk.left_out()
        self._disk.leave([key for key in left_out if key not in self._entries])
        if waiting := {key: entry for key in left_out if (entry := self._entries.get(key))}:
            self._disk.put(waiting, ())

    def persist(self, timeout_s: float) -> int:
        """Waits until all is on disk, or the time is up; blocks written meanwhile."""
        before, until = self._disk.written.blocks, time.monotonic() + timeout_s
        while True:
            at = self._disk.written.blocks
            self.write_back()
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

    def use(self) -> PromptCacheUse:
        """What is kept, and what it was good for."""
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

    def give_back(self, size: int) -> None:
        """Gives so much memory back, once; what goes is on disk, or lost to the next prompt only."""
        limit_bytes = self._ram.limit_bytes
        self.shrink_ram(max(self._ram.total_bytes - max(size, 0), 0))
        self.shrink_ram(limit_bytes)

    def shrink_ram(self, limit_bytes: int) -> None:
        """A new limit for RAM; what goes is on disk, or lost to the next prompt only."""
        self._let_go(self._ram.resize(limit_bytes))

    # --- inside ---

    def _refresh(self, tags: Tags) -> None:
        """Takes up what happened beside: a folder that was cleared, blocks that were read."""
        with self._lock:
            read, self._read_ahead = self._read_ahead, {}
        if self._forget_cleared():
            return
        for key, (value, identity) in reversed(read.items()):
            if key in self._disk and identity == tags["identity"]:
                self._hold({key: Entry(value, tags)})

    def _forget_cleared(self) -> bool:
        """Whether `vestal cache clear` was run: it means RAM too."""
        if not self._disk.was_cleared():
            return False
        log_event("cache_cleared", cause="its folder was removed")
        self._entries.clear()
        self._ram.clear()
        return True

    def _hold(self, entries: Mapping[str, Entry], chain: Sequence[str] = ()) -> None:
        self._entries.update(entries)
        self._let_go(self._ram.add({key: entry.nbytes for key, entry in entries.items()}, chain))

    def _let_go(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._entries.pop(key, None)
        self._disk.leave(keys)

    def _value(self, key: str) -> Value | None:
        entry = self._entries.get(key) or self._disk.pending(key)
        return entry.value if entry else None

    def _group(self, name: str) -> list[str]:
        return list(dict.fromkeys([*self._ram.group(name), *self._disk.group(name)]))
