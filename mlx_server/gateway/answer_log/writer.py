"""The thread that writes the answers' files, so that a slow disk does not block the event loop.

All bytes that wait for a file are written with one call. If the call fails, the bytes stay in memory in their
order, and the thread tries again later. A file therefore always holds the beginning of its answer without a
gap.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto

from mlx_server.gateway.answer_log.file_names import FileName
from mlx_server.gateway.answer_log.folder import WHAT, AnswerFile, AnswerFolder
from mlx_server.gateway.answer_log.late_bytes import Chunk, made
from mlx_server.gateway.answer_log.reports import WritingReports
from mlx_server.gateway.answer_log.writing_thread import WritingThread
from vestal.best_effort.failures import FAILURES
from vestal.best_effort.files import DISK_FAULTS, EXHAUSTED

MAX_WAITING_BYTES = 64 * 1024 * 1024
"""How many bytes may wait to be written, unless a single request is larger. Two of the longest bodies fit:
with room for only one, the second of two requests with large images would not be stored."""

MAX_OPEN_FILES = 64
"""If more files than this are open, all are closed. A file is opened again when bytes are appended to it."""

_TRIED_AGAIN = DISK_FAULTS | EXHAUSTED | {errno.EAGAIN, errno.EINTR}
"""Errors after which a write is tried again. After any other error, the answer is lost."""


class _Fate(Enum):
    OPEN = auto()
    ENDED = auto()
    REMOVED = auto()


@dataclass(eq=False)
class _Pending:
    """A file, the bytes that wait to be appended to it, and its `fate`: what happens to the file once they
    are written. `name` is the name that the file must have before they are written.
    """

    file: AnswerFile
    name: FileName
    chunks: list[Chunk] = field(default_factory=list)
    fate: _Fate = _Fate.OPEN


class Writer:
    """Owns the thread that writes the answers' files in `folder`. The event loop calls all public methods;
    none of them waits for the disk. At most `max_waiting_bytes` may wait to be written (see `append`). Failed
    writes and lost answers are reported to `reports`.
    """

    def __init__(
        self, folder: AnswerFolder, reports: WritingReports, max_waiting_bytes: int = MAX_WAITING_BYTES
    ) -> None:
        self._folder, self._reports, self._max_waiting_bytes = folder, reports, max_waiting_bytes
        self._files: dict[int, _Pending] = {}
        self._touched: dict[int, None] = {}  # numbers of files with something to do, in order
        self._waiting_bytes = 0
        self._failing = False
        self._open: set[AnswerFile] = set()  # only the thread uses it
        self._lock = threading.Lock()
        self._thread = WritingThread(self._write_touched)

    def add(self, name: FileName, size_bytes: int = 0, *, exists: bool = False) -> None:
        """Register the file of an unfinished answer, so that `append` can be called for it. The file is a new
        one, or one that `exists` with `size_bytes` of complete records.
        """
        file = AnswerFile(self._folder, name, size_bytes, exists=exists)
        with self._lock:
            self._files[name.number] = _Pending(file, name)

    def append(self, number: int, data: Chunk) -> bool:
        """Queue bytes for the file with this number, and return True. If bytes wait already, and `data` would
        raise their number above `max_waiting_bytes`, queue nothing and return False. If the thread has
        deleted the file after a failed write, which the event loop may not know yet, drop `data` and return
        True.
        """
        with self._lock:
            pending = self._files.get(number)
            if pending is None:
                return True
            if self._waiting_bytes and self._waiting_bytes + len(data) > self._max_waiting_bytes:
                self._failing = True  # so that `_report` reports when writing works again
                return False
            self._waiting_bytes += len(data)
            pending.chunks.append(data)
            self._touch(number)
        return True

    def rename(self, name: FileName) -> None:
        """Have the writing thread rename a file to `name`, whose number says which file. The thread renames
        it before it writes the bytes that wait for it. Return at once. Do nothing if the file was deleted
        after a failed write.
        """
        with self._lock:
            if (pending := self._files.get(name.number)) is not None:
                pending.name = name
                self._touch(name.number)

    def end(self, number: int) -> None:
        """Have the thread rename the file with this number, to mark its answer as ended, once it has written
        all bytes queued for the file. Return at once. Do nothing if the answer was lost, because the file
        could not be written and was deleted.
        """
        with self._lock:
            if (pending := self._files.get(number)) is not None:
                pending.fate = _Fate.ENDED
                self._touch(number)

    def remove(self, name: FileName) -> None:
        """Drop the bytes that wait to be written to a file, and have the thread delete the file. Return at
        once.
        """
        with self._lock:
            pending = self._files.setdefault(
                name.number, _Pending(AnswerFile(self._folder, name, exists=True), name)
            )
            self._forget_chunks(pending)
            pending.fate = _Fate.REMOVED
            self._touch(name.number)

    def read(self, name: Callable[[], FileName]) -> Future[bytes]:
        """Return a future that receives all bytes that were appended to a file, whether they are written yet
        or not. The future raises OSError if the file cannot be read, or the writer is closed.

        `name` returns the file's name, and is called by the thread: the file may get another one meanwhile.
        """
        future: Future[bytes] = Future()
        if not self._thread.put(lambda: self._read(name(), future)):
            future.set_exception(OSError(errno.EBADF, "the answer log is closed"))
        return future

    def run(self, job: Callable[[], None]) -> None:
        """Queue `job`, which must not raise, for the thread that writes the files, and return at once. Jobs
        run in order. After `close`, nothing runs any more.
        """
        self._thread.put(job)

    def flush(self) -> Future[None]:
        """Return a future that is done when the thread has tried to write all bytes that are queued now."""
        future: Future[None] = Future()
        if not self._thread.put(lambda: _finish(future)):
            _finish(future)
        return future

    def close(self) -> Future[None]:
        """Have the thread that writes the files write all bytes that are queued now, as far as the disk
        permits, close all files and end. Return a future that is done when the files are closed.
        """
        future: Future[None] = Future()
        if not self._thread.close(lambda: self._finish_closing(future)):
            _finish(future)
        return future

    # --- under the lock ---

    def _touch(self, number: int) -> None:
        self._touched[number] = None
        self._thread.notify()

    def _forget_chunks(self, pending: _Pending) -> None:
        self._waiting_bytes -= sum(map(len, pending.chunks))
        pending.chunks.clear()

    def _forget(self, pending: _Pending) -> None:
        self._forget_chunks(pending)
        del self._files[pending.file.name.number]
        self._touched.pop(pending.file.name.number, None)

    # --- in the thread ---

    def _write_touched(self) -> bool:
        """Write the waiting bytes of all files that have something to do since the last call, and rename or
        delete these files if that was requested. Return False if an access to a file failed.
        """
        with self._lock:
            touched, self._touched = self._touched, {}
        succeeded = self._write_all(list(touched))
        if len(self._open) > MAX_OPEN_FILES:
            self._close_files()
        return succeeded

    def _write_all(self, numbers: list[int]) -> bool:
        """Write the waiting bytes of the files with these numbers, and rename or delete these files if that
        was requested. Return False if an access to a file failed; `_touched` then contains the numbers of the
        files that are to be tried again.
        """
        grew, error = False, None
        for number in numbers:
            pending = self._files[number]
            try:
                grew = self._write(pending) or grew
            except OSError as failure:
                error = failure
                self._handle_failure(pending, failure)
            (self._open.add if pending.file.is_open else self._open.discard)(pending.file)
        self._report(grew, error)
        return error is None

    def _write(self, pending: _Pending) -> bool:
        """Give a file its name, write the bytes that wait for it, and then rename it if `pending.fate` is
        ENDED. If the fate is REMOVED, delete the file instead. Return whether the file grew. Raises OSError
        if the disk fails.
        """
        with self._lock:
            chunks, pending.chunks = pending.chunks, []
            fate, name = pending.fate, pending.name
        before = pending.file.size_bytes
        try:
            if fate is not _Fate.REMOVED and name != pending.file.name:
                pending.file.rename(name)
            if chunks and fate is not _Fate.REMOVED:
                data = b"".join(made(chunks))
                chunks = [data]
                pending.file.append(data)
        except MemoryError as error:
            raise OSError(errno.ENOMEM, "there is no memory for what is to be written") from error
        finally:
            written = pending.file.size_bytes - before
            with self._lock:
                self._waiting_bytes -= written
                if written < sum(map(len, chunks)):
                    pending.chunks[:0] = [b"".join(made(chunks))[written:]] if written else chunks
        if fate is _Fate.ENDED:
            pending.file.end()
        elif fate is _Fate.REMOVED:
            pending.file.remove()
        with self._lock:
            if fate is not _Fate.OPEN and pending.fate is fate:  # not if it was removed while it was renamed
                self._forget(pending)
        return written > 0

    def _handle_failure(self, pending: _Pending, error: OSError) -> None:
        """Handle the `error` of an access to a file. If its errno is in _TRIED_AGAIN, such as that of a full
        disk, add the file to `_touched`, so that it is tried again. Otherwise, delete the file; its answer is
        then reported as lost, unless the file was to be deleted anyway.
        """
        with self._lock:
            if error.errno in _TRIED_AGAIN:
                self._touched[pending.file.name.number] = None
                return
            lost = pending.fate is not _Fate.REMOVED
            self._forget(pending)
        with suppress(OSError):
            pending.file.remove()
        if lost:
            self._reports.answer_lost(pending.file.name)

    def _report(self, grew: bool, error: OSError | None) -> None:
        with self._lock:
            was_failing = self._failing
            has_room = self._waiting_bytes * 2 <= self._max_waiting_bytes
            self._failing = error is not None or (was_failing and not (grew and has_room))
            works_again = was_failing and not self._failing
        if error is not None:
            FAILURES.failed(WHAT, error, count=0 if was_failing else 1)
            if not was_failing:
                self._reports.writing_failed(error)
        elif works_again:
            FAILURES.succeeded(WHAT)
            self._reports.writing_works()

    def _read(self, name: FileName, future: Future[bytes]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        with self._lock:
            pending = self._files.get(name.number)
            waiting = list(pending.chunks) if pending is not None else []
        try:
            if pending is not None:
                data = pending.file.read() + b"".join(made(waiting))
            else:  # the answer has ended, perhaps after this was queued
                data = self._folder.read(name.as_ended())
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(data)

    def _finish_closing(self, future: Future[None]) -> None:
        self._close_files()
        _finish(future)

    def _close_files(self) -> None:
        for file in self._open:
            file.close()
        self._open.clear()


def _finish(future: Future[None]) -> None:
    if future.set_running_or_notify_cancel():  # False: nobody waits any more
        future.set_result(None)
