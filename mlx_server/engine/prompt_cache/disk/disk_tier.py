"""The disk tier of the prompt cache: an index of the files, and the thread that writes them.

The MLX thread calls all methods, except for `read`, which any thread may call. The writing thread reports its
results through a queue, so that only the MLX thread changes the index. If the disk cannot be written, prompts
are only cached in memory.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mlx_server.engine.log import log_event
from mlx_server.engine.prompt_cache.disk.folder import BlockFolder, FolderId
from mlx_server.engine.prompt_cache.disk.write_behind import WriteBehind
from mlx_server.engine.prompt_cache.entry import Entry, file_bytes, pack
from mlx_server.engine.prompt_cache.keys import parent_of
from mlx_server.engine.prompt_cache.lru import Lru

WAITING_BYTES = 256 << 20
"""The most bytes that may wait to be written. Further blocks are only in RAM until there is room."""

PAUSE_AFTER_FAILURE_S = 60.0
"""How many seconds nothing is written after a failure, such as a full disk."""


@dataclass
class WriteCounts:
    """Counts since the engine's start: blocks written, bytes written, and blocks that could not be
    written.
    """

    blocks: int = 0
    bytes: int = 0
    failed: int = 0


@dataclass(frozen=True)
class WriteResult:
    """The result of writing the file of `key`: its size in bytes, or the error. `folder_id` identifies the
    folder that was open when the write was queued (`BlockFolder.identity`).
    """

    key: str
    folder_id: FolderId | None
    size: int = 0
    error: OSError | None = None


class DiskTier:
    """The blocks on disk. If `folder` is None or the limit is 0, there is no disk tier, so nothing is stored
    or found.
    """

    def __init__(
        self, folder: BlockFolder | None, limit_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.written = WriteCounts()
        self._folder = folder if limit_bytes else None
        self._index = Lru(limit_bytes, parent_of)
        self._pending: dict[str, Entry] = {}  # in the index, but not in a file yet
        self._unwritten: dict[
            str, None
        ] = {}  # neither written nor waiting to be written, in order of arrival
        self._done: queue.SimpleQueue[WriteResult] = queue.SimpleQueue()
        self._writer = WriteBehind(WAITING_BYTES)
        self._clock = clock
        self._paused_until_s = float("-inf")
        self._failing = False
        self._folder_id: FolderId | None = None
        self._open()

    def __contains__(self, key: str) -> bool:
        return key in self._index

    @property
    def total_bytes(self) -> int:
        return self._index.total_bytes

    @property
    def limit_bytes(self) -> int:
        return self._index.limit_bytes

    def group(self, name: str) -> list[str]:
        """Return the keys that have `name` before their first hyphen, the most recently added first. `name`
        stands for a block (the keys are those of the blocks that directly follow it), for a model (the first
        blocks of its prompts), or for all snapshots of a model.
        """
        return self._index.group(name)

    def newest(self) -> list[str]:
        """Return all keys, the most recently used first."""
        return list(self._index)[::-1]

    def size_of(self, key: str) -> int:
        """Return the size in bytes of the file of `key`, which must be in the index."""
        return self._index.size_of(key)

    def pending(self, key: str) -> Entry | None:
        """Return the entry of `key` if it waits to be written; else None."""
        return self._pending.get(key)

    def read(self, key: str) -> bytes:
        """Return the bytes of the file of `key`. Raises OSError if the file cannot be read."""
        if self._folder is None:
            raise FileNotFoundError(key)
        return self._folder.read(key)

    def was_cleared(self) -> bool:
        """If the folder of the blocks was deleted since it was opened, empty the index, open the folder
        again, and return True. Otherwise, return False.
        """
        self._collect_results()
        if self._folder is None or self._folder_id is None or self._folder.identity() == self._folder_id:
            return False
        self._index.clear()
        self._pending.clear()
        self._unwritten.clear()
        self._open()
        return True

    def unwritten(self) -> list[str]:
        """Return the keys of the entries that were passed to `put` but could not be queued or written, so
        that the caller can pass these entries to `put` again.

        Entries that were evicted from the disk are not included: if they were, and RAM held more than fits on
        the disk, they would be written and evicted again and again.
        """
        self._collect_results()
        return list(self._unwritten)

    def abandon(self, keys: Sequence[str]) -> None:
        """Remove `keys` from the unwritten keys, so that writing them is not tried again."""
        for key in keys:
            self._unwritten.pop(key, None)

    def put(self, entries: Mapping[str, Entry], chain: Sequence[str]) -> None:
        """Queue `entries`, by key, for writing, and mark the blocks of `chain` as used. `chain` has the keys
        of a prompt's consecutive blocks, the last of which are the keys of `entries`; it is empty if these do
        not belong to consecutive blocks. If a key of `entries` is not in this tier afterward, its entry is
        too large, could not be queued, or was evicted at once.
        """
        self._collect_results()
        if self._folder is None:
            return
        self._unwritten |= dict.fromkeys(key for key in entries if key not in self._index)
        if self._clock() < self._paused_until_s:
            return
        if self._folder_id is None:
            self._open()
            if self._folder_id is None:
                return
        taken: dict[str, int] = {}
        for key, entry in entries.items():
            size = file_bytes(key, entry)
            if key in self._index or size > self._index.limit_bytes:
                self.abandon([key])
                continue
            if not self._writer.put(self._writing(self._folder, key, entry), entry.nbytes):
                break  # later blocks of the chain cannot be used without this one
            taken[key] = size
            self._pending[key] = entry
            self.abandon([key])
        self._remove(self._index.add(taken, chain))
        self.mark_used(chain)  # otherwise the next engine would evict the beginning of the chain first

    def mark_used(self, chain: Sequence[str]) -> None:
        """Record in the index that the consecutive blocks with the keys `chain` were used. Also set the
        modification times of their files, from which the next engine learns in which order blocks were used.
        """
        self._index.use(chain)
        present = [key for key in reversed(chain) if key in self._index]

        def mark(folder: BlockFolder) -> None:
            for key in present:  # the end of a chain is evicted first
                with contextlib.suppress(FileNotFoundError):
                    folder.touch(key)

        self._in_background(mark)

    def discard(self, keys: Sequence[str], *, remove: bool) -> None:
        """Remove `keys` from the index and, with `remove`, delete their files."""
        for key in keys:
            self._index.discard(key)
        if remove:
            self._remove(keys)

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything that is queued has been written. Return False if that takes more than
        `timeout_s` seconds.
        """
        done = self._writer.flush(timeout_s)
        self._collect_results()
        return done

    def close(self) -> None:
        self._writer.close()

    # --- inside ---

    def _open(self) -> None:
        """Create the folder if it is missing, and add its files to the index. If that fails, pause writing.
        `_folder_id` is then None, so that the next `put` after the pause tries again.
        """
        self._folder_id = None
        if self._folder is None:
            return
        try:
            contents = self._folder.open()
        except OSError as error:
            self._pause_writing(error)
            return
        self._folder_id = self._folder.identity()
        for key, size in contents.files:
            self._remove(self._index.add({key: size}))
        log_event(
            "cache_opened", blocks=len(self._index), bytes=self._index.total_bytes, swept=contents.swept
        )

    def _writing(self, folder: BlockFolder, key: str, entry: Entry) -> Callable[[], None]:
        folder_id = self._folder_id

        def job() -> None:
            try:
                if folder.identity() != folder_id:
                    raise FileNotFoundError(f"{folder.path} was deleted")
                parts = pack(key, entry)
                folder.write(key, parts)
            except OSError as error:
                self._done.put(WriteResult(key, folder_id, error=error))
            else:
                self._done.put(WriteResult(key, folder_id, sum(map(len, parts))))

        return job

    def _collect_results(self) -> None:
        """Update the index and the counts by what the writing thread has reported: the blocks that it has
        written, and those that it could not write. Ignore results for an earlier folder, which was deleted,
        because the same block may have been stored again since.
        """
        while True:
            try:
                result = self._done.get_nowait()
            except queue.Empty:
                return
            if result.folder_id != self._folder_id:
                continue
            self._pending.pop(result.key, None)
            if result.error is not None:
                self.written.failed += 1
                self._index.discard(result.key)
                self._unwritten[result.key] = None
                self._pause_writing(result.error)
                continue
            self.written.blocks += 1
            self.written.bytes += result.size
            if self._failing:
                self._failing = False
                log_event("cache_written_again")

    def _pause_writing(self, error: OSError) -> None:
        """Stop writing for PAUSE_AFTER_FAILURE_S seconds, and log the failure only once instead of for every
        block.
        """
        if isinstance(error, FileNotFoundError) and self._folder_id is not None:
            return  # the folder was deleted: `was_cleared` handles it
        self._paused_until_s = self._clock() + PAUSE_AFTER_FAILURE_S
        if not self._failing:
            self._failing = True
            log_event("cache_not_written", cause=f"{error}; prompts are cached in memory only")

    def _remove(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._pending.pop(key, None)
        gone = list(keys)

        def remove(folder: BlockFolder) -> None:
            for key in gone:
                folder.remove(key)

        if gone:
            self._in_background(remove)

    def _in_background(self, action: Callable[[BlockFolder], None]) -> None:
        folder = self._folder
        if folder is None:
            return

        def job() -> None:
            with contextlib.suppress(OSError):  # the file is already gone, or nothing can be done
                action(folder)

        self._writer.put(job)
