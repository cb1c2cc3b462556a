"""Both levels: finds the longest run of blocks that begins a prompt, and keeps what was computed.

One thread (MLX's) calls all methods but `gather`, which does the reading and may run in any. Files are
written by the write-behind thread. A file that cannot be read, or is not what its name says, is dropped and
missed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mlx_server.engine.log import log_event
from mlx_server.engine.prompt_cache import blob
from mlx_server.engine.prompt_cache.block import Block, common, from_tensors, join, to_tensors
from mlx_server.engine.prompt_cache.folder import Folder
from mlx_server.engine.prompt_cache.keys import PrefixKeys, as_parent, parent_of
from mlx_server.engine.prompt_cache.lru import Lru
from mlx_server.engine.prompt_cache.write_behind import WriteBehind

FORMAT = "1"
_WAITING_BYTES = 512 << 20
_NEXT_TRIED = 4
"""So many of the blocks that may go on from the last whole one are looked at."""


@dataclass(frozen=True)
class Find:
    """Blocks in a row, from a prompt's first: those `held` in RAM, the others on disk.

    After them, of `next_tokens`, a part may be had from one of `next_keys`: blocks that follow the last.
    """

    keys: tuple[str, ...]
    next_keys: tuple[str, ...]
    next_tokens: tuple[int, ...]
    held: Mapping[str, Block]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Gathered:
    """What `gather` made of a find: `block` None for nothing; `broken` are keys that must be forgotten."""

    block: Block | None
    read: Mapping[str, Block] = field(default_factory=dict)
    broken: tuple[str, ...] = ()


@dataclass
class Counts:
    """Since the engine's start; in blocks, but for the bytes."""

    hits_ram: int = 0
    hits_disk: int = 0
    written: int = 0
    written_bytes: int = 0
    broken: int = 0
    refused: int = 0


class Store:
    """`folder` None: RAM only. A limit of 0 switches its level off."""

    def __init__(self, folder: Folder | None, ram_bytes: int, disk_bytes: int) -> None:
        self.counts = Counts()
        self._folder = folder if disk_bytes else None
        self._ram, self._blocks = Lru(ram_bytes, parent_of), dict[str, Block]()
        self._disk = Lru(disk_bytes, parent_of)
        self._writer = WriteBehind(_WAITING_BYTES)
        self._told = False
        if self._folder:
            for key, size in self._folder.scan():
                self._remove(self._disk.add(key, size))

    # --- finding ---

    def find(self, prefixes: PrefixKeys, tokens: Sequence[int], tags: Mapping[str, str]) -> Find | None:
        """What there is of `tokens`; None for nothing."""
        keys = prefixes.of_blocks(tokens)
        found = tuple(keys[: self.kept(keys)])
        last = as_parent(found[-1] if found else prefixes.root)
        after = dict.fromkeys([*self._ram.group(last), *self._disk.group(last)])
        next_keys = tuple(after)[:_NEXT_TRIED]
        if not found and not next_keys:
            return None
        self._ram.use(found)
        self._disk.use(found)
        rest = tuple(tokens[len(found) * prefixes.block_tokens :])
        held = {key: self._blocks[key] for key in (*found, *next_keys) if key in self._blocks}
        return Find(found, next_keys, rest, held, tags)

    def gather(self, find: Find) -> Gathered:
        """Reads what is on disk and joins it all, up to the first block that cannot be had."""
        read: dict[str, Block] = {}
        blocks: list[Block] = []
        for key in find.keys:
            block = self._have(key, find, read)
            if block is None or (blocks and not block.fits(blocks[0])):
                return Gathered(join(blocks) if blocks else None, read, (key,))
            blocks.append(block)
        if part := self._part(find, read):
            blocks.append(part)
        return Gathered(join(blocks) if blocks else None, read)

    def _have(self, key: str, find: Find, read: dict[str, Block]) -> Block | None:
        block = find.held.get(key)
        if block is None and (block := self._read(key, find.tags)) is not None:
            read[key] = block
        return block

    def _part(self, find: Find, read: dict[str, Block]) -> Block | None:
        """The begin of a block that follows the last and goes on as the prompt does, for a while."""
        best: Block | None = None
        length = 0
        for key in find.next_keys:
            block = self._have(key, find, read)
            same = common(block.ids, find.next_tokens) if block else 0
            if block and same > length:
                best, length = block, same
        return best.head(length) if best else None

    def learn(self, find: Find, gathered: Gathered) -> None:
        """What `gather` has found out: blocks that are in RAM from now on, and others that are of no use."""
        self.counts.hits_ram += len(find.held.keys() & set(find.keys))
        self.counts.hits_disk += len(gathered.read)
        for key, block in gathered.read.items():
            self._hold(key, block)
        for key in gathered.broken:
            self.counts.broken += 1
            self._blocks.pop(key, None)
            self._ram.discard(key)
            self._disk.discard(key)
            self._remove([key])
        self._mark(find.keys)

    def _read(self, key: str, tags: Mapping[str, str]) -> Block | None:
        assert self._folder is not None
        try:
            facts, tensors = blob.decode(self._folder.read(key))
            told = {name: facts.get(name) for name in ("key", "format", "identity")}
            if told != {"key": key, "format": FORMAT, "identity": tags["identity"]}:
                raise blob.Corrupt("it is of another model or setting")
            return from_tensors(tensors, facts)
        except FileNotFoundError:  # another engine's limit, or `vestal cache clear`
            return None
        except (OSError, blob.Corrupt) as error:
            log_event("cache_block_dropped", cause=str(error), key=key)
            return None

    # --- keeping ---

    def kept(self, keys: Sequence[str]) -> int:
        """How many of `keys` are kept already, from the first on."""
        kept = 0
        while kept < len(keys) and (keys[kept] in self._blocks or keys[kept] in self._disk):
            kept += 1
        return kept

    def keep(self, blocks: Mapping[str, Block], tags: Mapping[str, str]) -> None:
        """Takes blocks in, in both levels."""
        for key, block in blocks.items():
            self._hold(key, block)
            if key not in self._disk:
                self._write(key, block, tags)

    def flush(self, timeout_s: float) -> bool:
        """Waits until all is on disk."""
        return self._writer.flush(timeout_s)

    def close(self) -> None:
        self._writer.close()

    @property
    def ram_bytes(self) -> int:
        return self._ram.total_bytes

    def give_back(self, size: int) -> None:
        """Gives so much memory back; what goes is on disk, or lost to the next prompt only."""
        limit_bytes = self._ram.limit_bytes
        for gone in self._ram.resize(max(self._ram.total_bytes - max(size, 0), 0)):
            self._blocks.pop(gone, None)
        self._ram.resize(limit_bytes)

    # --- inside ---

    def _hold(self, key: str, block: Block) -> None:
        self._blocks[key] = block
        for gone in self._ram.add(key, block.nbytes):
            self._blocks.pop(gone, None)

    def _write(self, key: str, block: Block, tags: Mapping[str, str]) -> None:
        folder = self._folder
        if folder is None:
            return

        def job() -> None:
            tensors, facts = to_tensors(block)
            try:
                folder.write(key, blob.encode(tensors, {**facts, **tags, "key": key, "format": FORMAT}))
            except OSError as error:
                self._cannot_write(error)

        if not self._writer.put(job, block.nbytes):
            self.counts.refused += 1
            return
        self.counts.written += 1
        self.counts.written_bytes += block.nbytes
        self._remove(self._disk.add(key, block.nbytes))

    def _cannot_write(self, error: OSError) -> None:
        """A full or unwritable disk costs warmth, no more. Said once, not for every block."""
        if not self._told:
            self._told = True
            log_event("cache_not_written", cause=f"{error}; prompts are cached in memory only")

    def _mark(self, keys: Sequence[str]) -> None:
        def mark(folder: Folder) -> None:
            for key in reversed(keys):  # as in `Lru.use`: the end of a chain is the first to go
                folder.used(key)

        self._in_background(mark)

    def _remove(self, keys: Sequence[str]) -> None:
        def remove(folder: Folder) -> None:
            for key in keys:
                folder.remove(key)

        if keys:
            self._in_background(remove)

    def _in_background(self, deed: Callable[[Folder], None]) -> None:
        folder = self._folder
        if folder is None:
            return

        def job() -> None:
            with contextlib.suppress(OSError):  # gone already, or nothing can be done here
                deed(folder)

        self._writer.put(job)
