"""Append events to the journal, read them back, and follow new ones.

Only the agent writes the journal, from its event loop. An event that has been written survives kill -9. While
the disk is full, events wait in memory, and are lost if the agent ends. Each event is also logged. The status
page, `GET /events` and `GET /journal` read the journal, not the log.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from host_agent.journal.database import (
    JournalDatabase,
    Row,
    event_from_row,
    find_damage,
    is_damage,
    row_of,
)
from host_agent.sentences import readable_cause
from vestal.best_effort.disks import find_obstacle
from vestal.best_effort.failures import FAILURES
from vestal.supervision import Event

log = logging.getLogger("vestal")
T = TypeVar("T")

PRUNE_EVERY = 200
PAGE_ROWS = 1000  # events in memory at once while all are read
FOLLOWER_BACKLOG = 1000  # events that a follower may fall behind before it is disconnected
RETRY_S = 1.0  # after a failure, appends do not try to open the file for this long
UNSAVED_MAX = 1000  # events that wait in memory for the disk; the oldest are lost first
WHAT = "journal"


class Journal:
    """The journal in the file `path`.

    An event is a dict: `seq` (its number in the journal), `ts` (seconds since 1970), `component`, `event`,
    `cause` (a sentence or empty) and `fields`. Old events are deleted every PRUNE_EVERY appends, so that the
    journal holds at most `max_rows + PRUNE_EVERY` of them.
    """

    def __init__(self, path: Path, *, max_rows: int = 20_000, wall: Callable[[], float] = time.time) -> None:
        self._path, self._max_rows, self._wall = path, max_rows, wall
        self._database = JournalDatabase(path)
        self._seq = 0
        self._replaced = ""
        self._failed_at = float("-inf")
        self._error: Exception = OSError("it is not open")
        self._unsaved: deque[dict[str, Any]] = deque()
        self._followers: set[asyncio.Queue[dict[str, Any] | None]] = set()
        self._readers: list[Callable[[dict[str, Any]], object]] = []
        self.keep()

    @property
    def replaced(self) -> str:
        """Return why the journal's file was last replaced by an empty one; "" if it was not replaced."""
        return self._database.replaced or self._replaced

    def record(self, component: str, event: str, cause: str = "", **fields: Any) -> dict[str, Any]:
        """Append an event with the current time, and return the event. `cause` says in words why it happened,
        and `fields` are its further data.

        An event that cannot be written waits in memory. If more than UNSAVED_MAX events wait, the oldest are
        lost.
        """
        return self._append(self._wall(), component, event, cause, fields)

    def append(self, event: Event) -> None:
        """Append an event of a supervisor. The event gets the journal's next sequence number."""
        self._append(event.ts, event.component, event.event, readable_cause(event.cause), dict(event.fields))

    def since(self, seq: int, limit: int = 500) -> list[dict[str, Any]]:
        """Return up to `limit` events with numbers above `seq`, oldest first."""
        saved = self._select("WHERE seq > ? ORDER BY seq LIMIT ?", seq, limit)
        return [*saved, *(entry for entry in self._unsaved if entry["seq"] > seq)][:limit]

    @property
    def last_seq(self) -> int:
        """Return the number of the newest event; 0 if there is none."""
        return self._seq

    def of_kinds(self, events: Sequence[str], since: int) -> list[dict[str, Any]]:
        """Return the events after number `since` whose name is one of `events`, oldest first."""
        names = ", ".join("?" * len(events))
        saved = self._select(f"WHERE seq > ? AND event IN ({names}) ORDER BY seq", since, *events)
        waiting = (entry for entry in self._unsaved if entry["seq"] > since and entry["event"] in events)
        return [*saved, *waiting]

    def newest(self, limit: int = 200) -> list[dict[str, Any]]:
        """Return the newest `limit` events, oldest first."""
        saved = self._select("ORDER BY seq DESC LIMIT ?", limit)[::-1]
        return [*saved, *self._unsaved][-limit:] if limit else []

    def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` with the database's connection, in one transaction on the journal's file, and return its
        result. `work` may use any table but `events`.

        Raises sqlite3.Error or OSError if the file cannot be read or written. A damaged file is then renamed,
        and the next attempt creates an empty one.
        """
        if time.monotonic() - self._failed_at >= RETRY_S:
            self._open()
        try:
            return self._database.transact(work)
        except (sqlite3.Error, OSError) as error:
            self._put_right(error)
            raise

    def keep(self) -> None:
        """Open the file again if it was closed or deleted, and write the events that wait in memory."""
        self._open()
        self._save()

    async def check(self) -> None:
        """Check the file for damaged pages, in a thread, and replace a damaged file by an empty one.

        If another file has taken its place meanwhile, because an event could not be written to the damaged
        one, that other file stays.
        """
        checked = self._database.file_at_path()
        if damage := await asyncio.to_thread(find_damage, self._path):
            with contextlib.suppress(OSError):
                self._database.put_aside(damage, checked)
            self.keep()

    @contextlib.contextmanager
    def follow(self) -> Iterator[asyncio.Queue[dict[str, Any] | None]]:
        """Yield a queue that receives each new event.

        The queue's last item is None, once the follower is FOLLOWER_BACKLOG events behind or the journal
        closes.
        """
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(FOLLOWER_BACKLOG + 1)
        self._followers.add(queue)
        try:
            yield queue
        finally:
            self._followers.discard(queue)

    def call_with_each(self, reader: Callable[[dict[str, Any]], object]) -> None:
        """Call `reader` with each new event, before `record` returns. Exceptions of `reader` are logged."""
        self._readers.append(reader)

    def rows_of(self, events: Collection[str]) -> Iterator[Row]:
        """Yield the events with these names, oldest first, as rows with their columns in the order of
        COLUMNS.
        """
        names, seq = ", ".join("?" * len(events)), 0
        condition = f"WHERE event IN ({names}) AND seq > ? ORDER BY seq LIMIT {PAGE_ROWS}"
        while page := self._rows(condition, *events, seq):
            yield from page
            seq = page[-1][0]
        yield from (row_of(entry) for entry in self._unsaved if entry["event"] in events)

    def disconnect_followers(self) -> None:
        """Put None, the last item, into the queue of every follower."""
        for queue in list(self._followers):
            self._disconnect(queue)

    def close(self) -> None:
        """Disconnect the followers and close the database."""
        self.disconnect_followers()
        self._database.close()

    # --- appending ------------------------------------------------------------------------------------------

    def _append(
        self, ts: float, component: str, event: str, cause: str, fields: dict[str, Any]
    ) -> dict[str, Any]:
        if time.monotonic() - self._failed_at >= RETRY_S:  # on a broken disk, each attempt may take its time
            self._open()
        entry = self._enqueue(float(ts), component, event, cause, fields)
        self._save()
        return entry

    def _enqueue(
        self, ts: float, component: str, event: str, cause: str, fields: dict[str, Any]
    ) -> dict[str, Any]:
        """Make an event with the next sequence number from the arguments, and return it. It is logged, put
        into the queues of `follow`, and passed to the functions of `call_with_each`. The caller then writes
        it with `_save`.
        """
        self._seq += 1
        entry: dict[str, Any] = {"seq": self._seq, "ts": ts, "component": component, "event": event}
        entry |= {"cause": cause, "fields": fields}
        self._unsaved.append(entry)
        details = " ".join(f"{key}={value}" for key, value in fields.items())
        log.info(
            "%s %s%s%s", component, event, f": {cause}" if cause else "", f" [{details}]" if details else ""
        )
        for queue in list(self._followers):
            if queue.qsize() >= FOLLOWER_BACKLOG:
                self._disconnect(queue)
            else:
                queue.put_nowait(entry)
        for reader in self._readers:
            try:
                reader(entry)
            except Exception:  # a failing reader must not prevent the event from being written
                log.exception("a reader of the journal failed for %s", event)
        return entry

    def _disconnect(self, queue: asyncio.Queue[dict[str, Any] | None]) -> None:
        self._followers.discard(queue)
        queue.put_nowait(None)

    # --- the file -------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Open the database if it is not open. New events get numbers above the highest in the file."""
        try:
            if not self._database.open():
                return
            last_seq = self._database.last_seq()
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
            return
        if self._unsaved and self._unsaved[0]["seq"] <= last_seq:
            for number, entry in enumerate(self._unsaved, last_seq + 1):
                entry["seq"] = number
            self._seq = self._unsaved[-1]["seq"]
        self._seq = max(self._seq, last_seq)
        if not self._unsaved:
            FAILURES.succeeded(WHAT)
        if self._database.replaced:
            self._replaced, self._database.replaced = self._database.replaced, ""
            cause = f"The journal {self._path} was replaced by an empty one: {self._replaced}."
            self._enqueue(self._wall(), "agent", "journal_replaced", cause, {})

    def _save(self) -> None:
        """Write all events that are not written yet. While the disk is full, they wait in memory, so that
        recovery goes on.
        """
        if not self._unsaved:
            return
        if not self._database.is_open:
            self._drop_surplus()
            return
        newest = self._unsaved[-1]["seq"]
        prune = newest // PRUNE_EVERY != (self._unsaved[0]["seq"] - 1) // PRUNE_EVERY
        try:
            self._database.insert(self._unsaved, newest - self._max_rows if prune else 0)
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
            return
        self._unsaved.clear()
        FAILURES.succeeded(WHAT)

    def _select(self, condition: str, *arguments: int | str) -> list[dict[str, Any]]:
        return [event_from_row(row) for row in self._rows(condition, *arguments)]

    def _rows(self, condition: str, *arguments: int | str) -> list[Row]:
        if not self._database.is_open:
            return []
        try:
            return self._database.rows(condition, *arguments)
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
            return []

    def _failed(self, error: Exception) -> None:
        """Record in FAILURES that `error` occurred when the journal was read or written. Prepare the file for
        the next attempt (`_put_right`), and drop the oldest waiting events if too many wait.
        """
        self._error = error
        self._put_right(error)
        FAILURES.failed(WHAT, error, count=0)
        self._drop_surplus()

    def _put_right(self, error: Exception) -> None:
        """Prepare the file for the next attempt after `error`, which occurred when it was opened, read or
        written.

        A damaged file is renamed, and the next attempt creates an empty one. Any other file is closed, and
        the next attempt opens it again. If the disk itself is full, read-only or broken, the file is left as
        it is.
        """
        self._failed_at = time.monotonic()
        if isinstance(error, sqlite3.Error) and is_damage(error):
            with contextlib.suppress(OSError):
                self._database.put_aside(str(error), self._database.opened_file)
        elif find_obstacle(self._path.parent) is None:
            self._database.close()  # what was opened on a read-only disk stays read-only

    def _drop_surplus(self) -> None:
        """Drop the oldest waiting events above UNSAVED_MAX, and count each as a failed write."""
        while len(self._unsaved) > UNSAVED_MAX:
            self._unsaved.popleft()
            FAILURES.failed(WHAT, self._error)
