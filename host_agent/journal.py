"""The journal: a bounded list of events in SQLite, in the order in which they happened.

Only the agent writes it, from its event loop; kill -9 loses no event. Each event is also logged. The status
page, `GET /events` and `GET /journal` read the journal.
"""

import asyncio
import contextlib
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vestal.supervision import Event

log = logging.getLogger("vestal")

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    ts REAL NOT NULL, component TEXT NOT NULL, event TEXT NOT NULL, cause TEXT NOT NULL, fields TEXT NOT NULL)
"""
COLUMNS = "seq, ts, component, event, cause, fields"
PRUNE_EVERY = 200
FOLLOWER_BACKLOG = 1000  # events that a follower may fall behind before it is disconnected


class Journal:
    """Append events, read them back, and follow new ones.

    An event is a dict: `seq` (its number in the journal), `ts` (seconds since 1970), `component`, `event`,
    `cause` (a sentence or empty) and `fields`. Old events are deleted every PRUNE_EVERY appends, so that the
    journal holds at most `max_rows + PRUNE_EVERY` of them.
    """

    def __init__(self, path: Path, *, max_rows: int = 20_000, wall: Callable[[], float] = time.time) -> None:
        self._path, self._max_rows, self._wall = path, max_rows, wall
        self._database = _open(path)
        self._followers: set[asyncio.Queue[dict[str, Any] | None]] = set()

    def record(self, component: str, event: str, cause: str = "", **fields: Any) -> dict[str, Any]:
        """Append an event that happens now, and return it."""
        return self._append(self._wall(), component, event, cause, fields)

    def append(self, event: Event) -> None:
        """Append an event of a supervisor under the journal's own sequence number."""
        self._append(event.ts, event.component, event.event, readable_cause(event.cause), dict(event.fields))

    def since(self, seq: int, limit: int = 500) -> list[dict[str, Any]]:
        """Return up to `limit` events after number `seq`, oldest first."""
        query = f"SELECT {COLUMNS} FROM events WHERE seq > ? ORDER BY seq LIMIT ?"
        return [event_from_row(row) for row in self._database.execute(query, (seq, limit))]

    def newest(self, limit: int = 200) -> list[dict[str, Any]]:
        """Return the newest `limit` events, oldest first."""
        query = f"SELECT {COLUMNS} FROM events ORDER BY seq DESC LIMIT ?"
        return [event_from_row(row) for row in self._database.execute(query, (limit,))][::-1]

    @contextlib.contextmanager
    def follow(self) -> Iterator[asyncio.Queue[dict[str, Any] | None]]:
        """Yield a queue that receives each new event.

        None is its last item: the follower fell FOLLOWER_BACKLOG events behind, or the journal is closing.
        """
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(FOLLOWER_BACKLOG + 1)
        self._followers.add(queue)
        try:
            yield queue
        finally:
            self._followers.discard(queue)

    def disconnect_followers(self) -> None:
        """Put the closing None into the queue of every follower."""
        for queue in list(self._followers):
            self._disconnect(queue)

    def close(self) -> None:
        """Disconnect the followers and close the database."""
        self.disconnect_followers()
        self._database.close()

    def _append(
        self, ts: float, component: str, event: str, cause: str, fields: dict[str, Any]
    ) -> dict[str, Any]:
        entry = {"ts": ts, "component": component, "event": event, "cause": cause, "fields": fields}
        seq = self._write(ts, component, event, cause, fields)
        entry = {"seq": seq} | entry
        details = " ".join(f"{key}={value}" for key, value in fields.items())
        log.info(
            "%s %s%s%s", component, event, f": {cause}" if cause else "", f" [{details}]" if details else ""
        )
        for queue in list(self._followers):
            if queue.qsize() >= FOLLOWER_BACKLOG:
                self._disconnect(queue)
            else:
                queue.put_nowait(entry)
        return entry

    def _write(self, ts: float, component: str, event: str, cause: str, fields: dict[str, Any]) -> int:
        """Write one event and return its number; 0 where the database cannot be written.

        A full disk must not stop recovery, so the error is only logged; followers still get the event.
        """
        try:
            with self._database:
                cursor = self._database.execute(
                    "INSERT INTO events (ts, component, event, cause, fields) VALUES (?, ?, ?, ?, ?)",
                    (ts, component, event, cause, json.dumps(fields, default=str)),
                )
                seq = cursor.lastrowid or 0
                if seq % PRUNE_EVERY == 0:
                    self._database.execute("DELETE FROM events WHERE seq <= ?", (seq - self._max_rows,))
        except sqlite3.Error as error:
            log.error("The journal %s cannot be written: %s", self._path, error)
            return 0
        return seq

    def _disconnect(self, queue: asyncio.Queue[dict[str, Any] | None]) -> None:
        self._followers.discard(queue)
        queue.put_nowait(None)


def readable_cause(cause: str) -> str:
    """Return `cause` with the log line at its end in words, where that line is an event in JSON.

    A supervisor appends a child's last log line to the cause of its end: `killed by SIGKILL: {"ts": …}`.
    """
    head, _, line = cause.partition(": {")
    try:
        logged = json.loads("{" + line)
        words = f"{logged['component']} {logged['event'].replace('_', ' ')}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return cause
    logged_cause = str(logged.get("cause") or "")
    return f"{head}; its last log line: {words}" + (f" ({logged_cause})" if logged_cause else "")


def event_from_row(row: tuple[int, float, str, str, str, str]) -> dict[str, Any]:
    """Return the event in a row that was read with COLUMNS."""
    seq, ts, component, event, cause, fields = row
    head = {"seq": seq, "ts": ts, "component": component, "event": event, "cause": cause}
    return head | {"fields": json.loads(fields)}


def _open(path: Path) -> sqlite3.Connection:
    """Open the database. A damaged file is renamed, and an empty journal started in its place."""
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        aside = path.with_name(f"{path.name}.damaged-{int(time.time())}")
        log.error("The journal is damaged (%s); it was renamed to %s.", error, aside)
        path.replace(aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=5)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")  # a power cut may cost the last events, a kill -9 none
        database.execute(SCHEMA)
        database.execute("SELECT seq FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    except sqlite3.DatabaseError:
        database.close()
        raise
    path.chmod(0o600)
    return database
