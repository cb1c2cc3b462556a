"""The answer log as the gateway uses it: the index decides what is kept, and the writing thread does the I/O.

If the disk cannot be written, the gateway continues to serve, and records wait in memory up to a limit. An
answer whose records exceed that limit is dropped from the log, and cannot be resumed.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from mlx_server.gateway.answer_log import earlier_files
from mlx_server.gateway.answer_log.file_names import FileName, may_be_in_a_name
from mlx_server.gateway.answer_log.folder import AnswerFolder
from mlx_server.gateway.answer_log.index import Entry, Index
from mlx_server.gateway.answer_log.late_bytes import Chunk, packed
from mlx_server.gateway.answer_log.records import (
    Accepted,
    Ended,
    Left,
    Record,
    TakenUp,
    format_of,
    pack_record,
    read_records,
)
from mlx_server.gateway.answer_log.reports import Emit, WritingReports
from mlx_server.gateway.answer_log.writer import MAX_WAITING_BYTES, Writer
from vestal.supervision import Clock

CLOSE_TIMEOUT_S = 5.0
"""How long `close` waits for a disk that does not answer."""


class AnswerLog:
    """The log of the answers of this gateway and of earlier ones.

    Only the event loop that opened the log may call its methods. Only `open` raises, and only the coroutines
    wait for the disk. A record for an answer that is not in the log, or has ended, is ignored. `open`
    explains `max_waiting_bytes`.
    """

    def __init__(
        self, folder: AnswerFolder, index: Index, clock: Clock, emit: Emit, max_waiting_bytes: int
    ) -> None:
        """Start the log's thread, which writes the files, and reports to the event loop that runs this call.
        `earlier_files.take_over` must have been called for `folder`. `index` holds the answers that are in
        the log, and chooses which are deleted. `emit` is called with each event about the log. At most
        `max_waiting_bytes` wait in memory to be written, unless a single record is larger.
        """
        self._folder, self._index, self._clock, self._emit = folder, index, clock, emit
        self._reports = WritingReports(folder.path, emit, self._lose)
        self._writer = Writer(folder, self._reports, max_waiting_bytes)
        self._flushing: asyncio.Future[None] | None = None
        self._numbers = itertools.count(1)
        self._expired_ids_changed = False

    @classmethod
    async def open(
        cls,
        folder: Path | AnswerFolder,
        *,
        keep_s: float,
        max_bytes: int,
        max_answers: int,
        clock: Clock,
        emit: Emit,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> AnswerLog:
        """Open the log in a folder, and take over the answers that earlier gateways left there. Raises
        LogInUse if another process uses the folder.

        An answer is deleted `keep_s` seconds after its end, or earlier if the log exceeds `max_bytes` or
        `max_answers`; ended answers are deleted first, the oldest end first. At most `max_waiting_bytes` wait
        in memory to be written to the disk. If bytes wait already, and the next record of an answer would
        raise their number above this limit, the answer is deleted from the log.

        `emit(event, cause, **fields)` is called with each event about the log, for example when the disk
        cannot be written.
        """
        place = folder if isinstance(folder, AnswerFolder) else AnswerFolder(folder)
        found = await asyncio.to_thread(earlier_files.take_over, place)
        log = cls(place, Index(keep_s, max_bytes, max_answers), clock, emit, max_waiting_bytes)
        log._adopt(found, keep_s)
        return log

    def begin(self, accepted: Accepted, body: Sequence[bytes] = ()) -> None:
        """Start the file of an accepted request. If the body in `accepted` is empty, the parts in `body` make
        up the request's body.
        """
        key = accepted.key_digest
        if not (may_be_in_a_name(accepted.id) and (key is None or may_be_in_a_name(key))):
            return self._skip(accepted.id, "its id or key cannot be part of a file's name")
        if self._index.get(accepted.id) is not None:
            return self._skip(accepted.id, "another request has its id")
        try:
            data = packed(accepted, body)
        except ValueError as error:
            return self._skip(accepted.id, str(error))
        name = FileName(next(self._numbers), accepted.id, key, format_of(accepted), ended=False)
        entry = Entry(name, 0, self._clock.now())
        self._index.add(entry)
        self._writer.add(name)
        self._append(entry, data)
        return None

    def append(self, answer_id: str, record: Record) -> None:
        """Append a record to an answer that has not ended."""
        entry = self._index.get(answer_id)
        if entry is None or entry.name.ended:
            return
        try:
            data = pack_record(record)
        except ValueError as error:  # without this record, the file would have a gap
            self._drop([entry])
            return self._skip(answer_id, str(error))
        if isinstance(record, Left | TakenUp):
            self._index.suspend(entry, isinstance(record, Left), self._clock.now())
        if (number := format_of(record)) > entry.name.format:
            entry.name = entry.name.in_format(number)
            self._writer.rename(entry.name)
        self._append(entry, data)
        return None

    def append_packed(self, answer_id: str, data: bytes) -> None:
        """Append events and keep-alives that `pack_record` has packed, to an answer that has not ended."""
        entry = self._index.get(answer_id)
        if entry is not None and not entry.name.ended:
            self._append(entry, data)

    def ended(self, answer_id: str) -> None:
        """Record that all answers of the request have ended, and have the file closed and marked as ended.
        Call this after the last event was appended.
        """
        self.append(answer_id, Ended())
        entry = self._index.get(answer_id)
        if entry is not None and not entry.name.ended:
            self._index.end(entry, self._clock.now())
            self._writer.end(entry.name.number)

    def forget(self, answer_id: str) -> None:
        """Delete an answer without a trace: its status is then None, not `expired`."""
        entry = self._index.get(answer_id)
        if entry is not None:
            self._index.remove(entry)
            self._writer.remove(entry.name)

    async def records(self, answer_id: str) -> list[Record] | None:
        """Return all records of an answer; None if the answer is not in the log, or its file is damaged or
        cannot be read.
        """
        entry = self._index.get(answer_id)
        if entry is None:
            return None
        has_ended = entry.name.ended
        try:
            data = await asyncio.wrap_future(self._writer.read(lambda: entry.name))
        except OSError as error:
            self._drop_unreadable(entry, str(error.strerror or error))
            return None
        records, _ = await asyncio.to_thread(read_records, data)
        if has_ended and not (records and isinstance(records[-1], Ended)):
            self._drop_unreadable(entry, "it is damaged")
            return None
        return records

    def size_bytes(self, answer_id: str) -> int:
        """Return how many bytes the records of an answer take up; 0 if the answer is not in the log."""
        entry = self._index.get(answer_id)
        return 0 if entry is None else entry.size_bytes

    async def data(self, answer_id: str) -> bytes | None:
        """Return the records of an answer as the bytes of its file; None if the answer is not in the log, or
        its file cannot be read.
        """
        entry = self._index.get(answer_id)
        if entry is None:
            return None
        try:
            return await asyncio.wrap_future(self._writer.read(lambda: entry.name))
        except OSError:
            return None

    def unfinished(self) -> list[str]:
        """Return the ids of the answers that have not ended, including suspended ones, in the order of their
        acceptance.
        """
        return self._index.unfinished()

    def id_of_key(self, key_digest: str) -> str | None:
        """Return the id of the answer that was accepted with this digest of an idempotency key; None if no
        such answer is in the log.
        """
        return self._index.id_of_key(key_digest)

    def status(self, answer_id: str) -> Literal["open", "ended", "expired"] | None:
        """Return the state of an answer: `expired` if the answer was deleted, None if its id is unknown."""
        return self._index.status(answer_id)

    def has(self, answer_id: str) -> bool:
        """Return whether an answer is in the log, whether it has ended or not."""
        return self.status(answer_id) in ("open", "ended")

    async def flush(self) -> None:
        """Wait until each record appended so far was written, or the disk has failed to write it."""
        if self._flushing is None:  # all calls in one turn of the event loop share one flush
            self._flushing = asyncio.ensure_future(self._flush_once())
        await asyncio.shield(self._flushing)

    async def _flush_once(self) -> None:
        self._flushing = None
        await asyncio.wrap_future(self._writer.flush())

    async def close(self) -> None:
        """Write the waiting records, and release the folder for the next gateway. No method may be called
        afterwards.

        If the disk does not answer within CLOSE_TIMEOUT_S, the folder is released only when this process
        ends.
        """
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await asyncio.wrap_future(self._writer.close())
        except TimeoutError:
            cause = f"The disk did not answer within {CLOSE_TIMEOUT_S:g} s: the last records are not written."
            self._emit("answer_log_stopped", cause)
        else:
            self._folder.unlock()

    def sweep(self) -> None:
        """Delete the expired answers, and renew the lock. This must be called every few seconds."""
        now = self._clock.now()
        self._drop(self._index.expired(now))
        if self._folder.is_lock_check_due(now):
            self._writer.run(self._folder.renew_lock)
        if self._expired_ids_changed:
            self._expired_ids_changed = False
            ids = self._index.expired_ids()
            self._writer.run(lambda: self._folder.write_expired_ids(ids))

    # --- inside ---

    def _append(self, entry: Entry, data: Chunk) -> None:
        if not self._writer.append(entry.name.number, data):
            self._drop([entry])
            self._reports.too_slow()
            return
        self._index.grow(entry, len(data))
        self._drop(self._index.surplus())

    def _drop(self, entries: Iterable[Entry]) -> None:
        """Delete answers, and remember their ids, so that the `status` of each is `expired`."""
        dropped = list(entries)
        if not dropped:
            return
        for entry in dropped:
            self._index.remove(entry)
            self._writer.remove(entry.name)
        self._remember_expired(entry.name.id for entry in dropped)

    def _drop_unreadable(self, entry: Entry, cause: str) -> None:
        if self._index.get(entry.name.id) is entry:  # else it was dropped while it was read
            self._drop([entry])
            self._skip(entry.name.id, f"its file cannot be read ({cause})")

    def _lose(self, name: FileName) -> None:
        entry = self._index.get(name.id)
        if entry is not None and entry.name.number == name.number:
            self._index.remove(entry)
            self._remember_expired([name.id])

    def _remember_expired(self, ids: Iterable[str]) -> None:
        self._index.remember_expired(ids)
        self._expired_ids_changed = True

    def _adopt(self, found: earlier_files.Found, keep_s: float) -> None:
        """Add to the index the answers that earlier gateways left, which are in `found`. Emit the events in
        `found` about files that were skipped or lost records, and report an error of the folder. Delete the
        answers that have expired or exceed the log's limits. `keep_s` is how long an ended or suspended
        answer is kept.
        """
        now, wall = self._clock.now(), self._clock.wall()
        for event, cause, fields in found.notes:
            self._emit(event, cause, **fields)
        if found.error is not None:
            self._reports.writing_failed(found.error)
        # If the folder could not be read, numbers made from the time differ from those of its files.
        self._numbers = itertools.count(int(wall * 1000) if found.error else found.last_number + 1)
        self._index.remember_expired(found.expired_ids)
        for file in sorted(found.files, key=lambda file: file.written_s if file.name.ended else 0.0):
            if self._index.get(file.name.id) is None:
                since_s = file.since_s(now, wall, keep_s)
                self._index.add(Entry(file.name, file.size_bytes, since_s, file.suspended))
                if not file.name.ended:
                    self._writer.add(file.name, file.size_bytes, exists=True)
        self._drop([*self._index.expired(now), *self._index.surplus()])

    def _skip(self, answer_id: str, cause: str) -> None:
        self._emit("answer_log_entry_skipped", f"This request is not kept: {cause}.", id=answer_id[:80])
