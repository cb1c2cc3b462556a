"""The disk level: which files there are, and the thread that writes them.

The MLX thread calls all methods but `read`, which any may call. What the writing thread has done comes back
through a queue, so that one thread alone owns the index. A disk that cannot be written costs warmth, no more.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mlx_server.engine.log import log_event
from mlx_server.engine.prompt_cache.entry import Entry, file_bytes, pack
from mlx_server.engine.prompt_cache.folder import Folder
from mlx_server.engine.prompt_cache.keys import parent_of
from mlx_server.engine.prompt_cache.lru import Lru
from mlx_server.engine.prompt_cache.write_behind import WriteBehind

WAITING_BYTES = 256 << 20
"""So much may wait to be written; past that a block stays in RAM only, until there is time."""

REST_S = 60.0
"""After a failure (a full disk, say) nothing is written for so long."""


@dataclass
class Written:
    """Since the start."""

    blocks: int = 0
    bytes: int = 0
    failed: int = 0


class Disk:
    """`folder` None, or a limit of 0: there is no disk level, and nothing is ever found."""

    def __init__(
        self, folder: Folder | None, limit_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.written = Written()
        self._folder = folder if limit_bytes else None
        self._index = Lru(limit_bytes, parent_of)
        self._pending: dict[str, Entry] = {}  # in the index, not yet in a file
        self._left_out: dict[str, None] = {}  # in the order they came; neither written nor waiting to be
        self._done: queue.SimpleQueue[tuple[str, int, OSError | None]] = queue.SimpleQueue()
        self._writer = WriteBehind(WAITING_BYTES)
        self._clock = clock
        self._rests_until_s = float("-inf")
        self._failing = False
        self._mark: tuple[int, ...] | None = None
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
        """The keys of a group, the newest first."""
        return self._index.group(name)

    def pending(self, key: str) -> Entry | None:
        """What waits to be written can be had without a file."""
        return self._pending.get(key)

    def read(self, key: str) -> bytes:
        """A file's bytes. Raises OSError."""
        if self._folder is None:
            raise FileNotFoundError(key)
        return self._folder.read(key)

    def was_cleared(self) -> bool:
        """Whether the folder was removed since it was opened: then what was in it is forgotten."""
        self._settle()
        if self._folder is None or self._mark is None or self._folder.mark() == self._mark:
            return False
        self._index.clear()
        self._pending.clear()
        self._left_out.clear()
        self._open()
        return True

    def left_out(self) -> list[str]:
        """What was put and could not be taken, or written. What went for others is not meant to come back:
        where RAM holds more than the disk may, all of it would be written again and again."""
        self._settle()
        return list(self._left_out)

    def leave(self, keys: Sequence[str]) -> None:
        """They cannot be put again: nobody has them any more."""
        for key in keys:
            self._left_out.pop(key, None)

    def put(self, entries: Mapping[str, Entry], chain: Sequence[str]) -> None:
        """Has the ends of a chain written, one day. What is not in the index afterwards was not taken."""
        self._settle()
        if self._folder is None:
            return
        self._left_out |= dict.fromkeys(key for key in entries if key not in self._index)
        if self._clock() < self._rests_until_s:
            return
        if self._mark is None:
            self._open()
            if self._mark is None:
                return
        taken: dict[str, int] = {}
        for key, entry in entries.items():
            size = file_bytes(key, entry)
            if key in self._index or size > self._index.limit_bytes:
                self.leave([key])
                continue
            if not self._writer.put(self._writing(self._folder, key, entry), entry.nbytes):
                break  # nothing that follows is of use without it
            taken[key] = size
            self._pending[key] = entry
            self.leave([key])
        self._remove(self._index.add(taken, chain))
        self.use(chain)  # as written, its begin would be the first to go in the next engine

    def use(self, chain: Sequence[str]) -> None:
        """A chain was used; the next engine shall know it too."""
        self._index.use(chain)
        there = [key for key in reversed(chain) if key in self._index]

        def mark(folder: Folder) -> None:
            for key in there:  # the end of a chain is the first to go
                with contextlib.suppress(FileNotFoundError):
                    folder.used(key)

        self._in_background(mark)

    def forget(self, keys: Sequence[str], *, remove: bool) -> None:
        """Files that are of no use, or gone already."""
        for key in keys:
            self._index.discard(key)
        if remove:
            self._remove(keys)

    def flush(self, timeout_s: float) -> bool:
        """Waits until all that was put is in files; False where it took too long."""
        done = self._writer.flush(timeout_s)
        self._settle()
        return done

    def close(self) -> None:
        self._writer.close()

    # --- inside ---

    def _open(self) -> None:
        if self._folder is None:
            return
        try:
            contents = self._folder.open()
        except OSError as error:
            self._fails(error)
            return
        self._mark = self._folder.mark()
        for key, size in contents.files:
            self._remove(self._index.add({key: size}))
        log_event(
            "cache_opened", blocks=len(self._index), bytes=self._index.total_bytes, swept=contents.swept
        )

    def _writing(self, folder: Folder, key: str, entry: Entry) -> Callable[[], None]:
        def job() -> None:
            try:
                parts = pack(key, entry)
                folder.write(key, parts)
            except OSError as error:
                self._done.put((key, 0, error))
            else:
                self._done.put((key, sum(map(len, parts)), None))

        return job

    def _settle(self) -> None:
        """Takes up what the writing thread has done."""
        while True:
            try:
                key, size, error = self._done.get_nowait()
            except queue.Empty:
                return
            self._pending.pop(key, None)
            if error is not None:
                self.written.failed += 1
                self._index.discard(key)
                self._left_out[key] = None
                self._fails(error)
                continue
            self.written.blocks += 1
            self.written.bytes += size
            if self._failing:
                self._failing = False
                log_event("cache_written_again")

    def _fails(self, error: OSError) -> None:
        """Said once, not for every block."""
        if isinstance(error, FileNotFoundError) and self._mark is not None:
            return  # the folder was cleared under us: `was_cleared` sees to it
        self._rests_until_s = self._clock() + REST_S
        if not self._failing:
            self._failing = True
            log_event("cache_not_written", cause=f"{error}; prompts are cached in memory only")

    def _remove(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._pending.pop(key, None)
        gone = list(keys)

        def remove(folder: Folder) -> None:
            for key in gone:
                folder.remove(key)

        if gone:
            self._in_background(remove)

    def _in_background(self, deed: Callable[[Folder], None]) -> None:
        folder = self._folder
        if folder is None:
            return

        def job() -> None:
            with contextlib.suppress(OSError):  # gone already, or nothing can be done here
                deed(folder)

        self._writer.put(job)
