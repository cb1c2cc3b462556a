"""The journal: what happened, in order, kept in SQLite. Bounded, and whole after a kill -9.

One writer, the agent, from its event loop. Logs, page and `/journal` read the same stream.
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
PRUNE_EVERY = 200
BACKLOG = 1000  # events a slow reader may fall behind before it is cut off


class Journal:
    """Append events, read them back, follow them. `max_rows` is held within PRUNE_EVERY rows."""

    def __init__(self, path: Path, *, max_rows: int = 20_000, wall: Callable[[], float] = time.time) -> None:
        self._path, self._max_rows, self._wall = path, max_rows, wall
        self._database = _open(path)
        self._readers: set[asyncio.Queue[dict[str, Any] | None]] = set()

    def record(self, component: str, event: str, cause: str = "", **fields: Any) -> dict[str, Any]:
        """Note that something happened now."""
        return self._append(self._wall(), component, event, cause, fields)

    def append(self, event: Event) -> None:
        """Take over an event of a supervisor; it gets the journal's own number."""
        self._append(event.ts, event.component, event.event, readable(event.cause), dict(event.fields))

    def since(self, seq: int, limit: int = 500) -> list[dict[str, Any]]:
        """Events after number `seq`, oldest first."""
        rows = self._database.execute(
            "SELECT seq, ts, component, event, cause, fields FROM events WHERE seq > ? ORDER BY seq LIMIT ?",
            (seq, limit),
        )
        return [as_json(row) for row in rows]

    def newest(self, limit: int = 200) -> list[dict[str, Any]]:
        """The last events, oldest first."""
        rows = self._database.execute(
            "SELECT seq, ts, component, event, cause, fields FROM events ORDER BY seq DESC LIMIT ?", (limit,)
        )
        return [as_json(row) for row in rows][::-1]

    def last(self, component: str, event: str) -> dict[str, Any] | None:
        """The newest event of that kind."""
        row = self._database.execute(
            "SELECT seq, ts, component, event, cause, fields FROM events"
            " WHERE component = ? AND event = ? ORDER BY seq DESC LIMIT 1",
            (component, event),
        ).fetchone()
        return as_json(row) if row else None

    @contextlib.contextmanager
    def follow(self) -> Iterator[asyncio.Queue[dict[str, Any] | None]]:
        """A queue that gets each new event; None ends it (the reader was too slow, or the journal closed)."""
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(BACKLOG + 1)
        self._readers.add(queue)
        try:
            yield queue
        finally:
            self._readers.discard(queue)

    def dismiss(self) -> None:
        """End every `follow`."""
        for queue in list(self._readers):
            self._cut_off(queue)

    def close(self) -> None:
        self.dismiss()
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
        for queue in list(self._readers):
            if queue.qsize() >= BACKLOG:
                self._cut_off(queue)
            else:
                queue.put_nowait(entry)
        return entry

    def _write(self, ts: float, component: str, event: str, cause: str, fields: dict[str, Any]) -> int:
        # A full disk must not stop the healing: the event still goes to the log and to who follows.
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
            log.error("the journal %s cannot be written: %s", self._path, error)
            return 0
        return seq

    def _cut_off(self, queue: asyncio.Queue[dict[str, Any] | None]) -> None:
        self._readers.discard(queue)
        queue.put_nowait(None)


def readable(cause: str) -> str:
    """A cause that ends with a child's last log line, which may be JSON, told in words."""
    head, _, line = cause.partition(": {")
    try:
        last = json.loads("{" + line)
        words = f"{last['component']} {last['event'].replace('_', ' ')}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return cause
    told = str(last.get("cause") or "")
    return f"{head}; its last log line: {words}" + (f" ({told})" if told else "")


def _open(path: Path) -> sqlite3.Connection:
    """The database; a damaged file is put aside and a new one begun."""
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        aside = path.with_name(f"{path.name}.damaged-{int(time.time())}")
        log.error("the journal is damaged (%s); it was put aside as %s", error, aside)
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


def as_json(row: tuple[int, float, str, str, str, str]) -> dict[str, Any]:
    seq, ts, component, event, cause, fields = row
    head = {"seq": seq, "ts": ts, "component": component, "event": event, "cause": cause}
    return head | {"fields": json.loads(fields)}
