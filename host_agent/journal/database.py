"""The journal's SQLite file: opened, checked, and replaced by a new one if it is damaged or gone."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    ts REAL NOT NULL, component TEXT NOT NULL, event TEXT NOT NULL, cause TEXT NOT NULL, fields TEXT NOT NULL)
"""
COLUMNS = "seq, ts, component, event, cause, fields"
INSERT = f"INSERT OR REPLACE INTO events ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"
DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
SIDE_FILES = ("-wal", "-shm")
BUSY_TIMEOUT_S = 0.5
CHECK_TIMEOUT_S = 2.0
CHECK_STEPS = 10_000  # SQLite's instructions between two looks at the clock
KEPT_COPIES = 3


Row = tuple[int, float, str, str, str, str]
"""An event's columns, in the order of COLUMNS."""


class JournalDatabase:
    """One connection to the file. Every method may raise sqlite3.Error or OSError.

    `replaced` says in words why the file was replaced by an empty one, and is empty if it was not.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._file_id: tuple[int, int] | None = None
        self._was_checked = False
        self.replaced = ""

    @property
    def is_open(self) -> bool:
        """Return whether there is a connection."""
        return self._connection is not None

    def open(self) -> bool:
        """Open the file unless it is open. Return True if it was opened now.

        A file that was deleted or replaced while it was open is created again. A damaged file is renamed, and
        an empty one takes its place.
        """
        if self._connection is not None:
            if self._identify() == self._file_id:
                return False
            self.close()
            self.replaced = "it was deleted or exchanged while it was open"
            self._delete_side_files()
        try:
            self._connection = _connect(self._path, check=not self._was_checked)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self.put_aside(str(error))
            self._connection = _connect(self._path, check=False)
        self._was_checked = True  # a broken disk may have it opened often
        self._file_id = self._identify()
        return True

    def put_aside(self, damage: str) -> None:
        """Rename the damaged file, so that the next `open` begins an empty one. A few copies are kept."""
        self.close()
        copy = self._path.with_name(f"{self._path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
        self._path.replace(copy)
        self._delete_side_files()
        self.replaced = f"it was damaged ({damage}) and renamed to {copy.name}"
        for old in damaged_copies(self._path)[:-KEPT_COPIES]:
            old.unlink(missing_ok=True)

    def last_seq(self) -> int:
        """Return the highest number that was ever given to an event in this file."""
        rows = self._execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchall()
        return int(rows[0][0]) if rows else 0

    def insert(self, entries: Iterable[dict[str, Any]], delete_up_to: int) -> None:
        """Write all entries or none, and delete the events up to number `delete_up_to`."""
        rows = [row_of(entry) for entry in entries]
        connection = self._opened()
        with connection:
            connection.executemany(INSERT, rows)
            connection.execute("DELETE FROM events WHERE seq <= ?", (delete_up_to,))

    def rows(self, condition: str, *arguments: int | str) -> list[Row]:
        """Return the rows of events in the database; `condition` is the WHERE and ORDER BY part of the SQL
        statement.
        """
        query = f"SELECT {COLUMNS} FROM events {condition}"
        connection = self._opened()
        connection.text_factory = (
            str  # a start reads thousands of rows: SQLite's own decoder takes half as long
        )
        try:
            return connection.execute(query, arguments).fetchall()
        except sqlite3.OperationalError as error:
            if "decode" not in str(error):
                raise
        finally:
            connection.text_factory = _decode
        return connection.execute(query, arguments).fetchall()

    def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work`, which uses tables of its own, in one transaction, and return its result."""
        connection = self._opened()
        with connection:
            return work(connection)

    def close(self) -> None:
        """Close the connection. It is opened again by the next `open`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.OperationalError("it is not open")
        return self._connection

    def _execute(self, query: str, *arguments: int | str) -> sqlite3.Cursor:
        return self._opened().execute(query, arguments)

    def _identify(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _delete_side_files(self) -> None:
        """Delete the write-ahead log of a file that is gone: SQLite would replay it into the new file."""
        for suffix in SIDE_FILES:
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether the error says that the file's content is damaged, and not that the disk is full."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in DAMAGE


def find_damage(path: Path) -> str:
    """Return what is wrong with the journal's pages; empty if they are intact, or there is no journal.

    Nothing is written. The agent may have the file open. A file that cannot be opened may still be intact.
    """
    if not path.exists():
        return ""
    try:
        with contextlib.closing(connect_read_only(path)) as database:
            _check(database)
    except sqlite3.Error as error:
        return str(error) if is_damage(error) else ""
    return ""


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Open the file for reading. Raises sqlite3.Error."""
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
    database.text_factory = _decode
    return database


def damaged_copies(path: Path) -> list[Path]:
    """Return the renamed files of damaged journals, oldest first."""
    return sorted(path.parent.glob(f"{path.name}.damaged-*"))


def event_from_row(row: Row) -> dict[str, Any]:
    """Return the event in a row that was read with COLUMNS."""
    seq, ts, component, event, cause, text = row
    fields = fields_from(text)
    return {"seq": seq, "ts": ts, "component": component, "event": event, "cause": cause, "fields": fields}


_decode_json = json.JSONDecoder().raw_decode


def fields_from(text: str) -> Any:
    """Return the fields in the last column of a row."""
    try:
        fields, end = _decode_json(text)  # a third faster than json.loads; a start reads thousands of entries
        if end != len(text):
            raise ValueError("more follows")
    except ValueError:  # SQLite cannot notice a flipped bit inside a text
        return {"unreadable": str(text)}
    return fields


def row_of(entry: dict[str, Any]) -> Row:
    """Return the row of an event, in the order of COLUMNS."""
    words = (_storable(str(entry[name])) for name in ("component", "event", "cause"))
    component, event, cause = words
    return entry["seq"], entry["ts"], component, event, cause, json.dumps(entry["fields"], default=str)


def _storable(text: str) -> str:
    """Return the text with `?` in place of lone surrogates, which UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()


def _connect(path: Path, *, check: bool) -> sqlite3.Connection:
    """Open the file. With `check`, verify all of its pages. Raises sqlite3.DatabaseError."""
    database = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
    try:
        database.text_factory = _decode
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")  # a power cut may cost the last events, a kill -9 none
        database.execute(SCHEMA)
        if check:
            _check(database)
    except sqlite3.DatabaseError:
        database.close()
        raise
    with contextlib.suppress(OSError):
        path.chmod(0o600)
    return database


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _check(database: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError if a page is damaged. A check that takes too long is given up."""
    deadline = time.monotonic() + CHECK_TIMEOUT_S
    database.set_progress_handler(lambda: time.monotonic() > deadline, CHECK_STEPS)
    try:
        result = str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
        database.execute(f"SELECT {COLUMNS} FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_INTERRUPT:
            raise
        result = "ok"
    finally:
        database.set_progress_handler(None, 0)
    if result != "ok":
        damage = sqlite3.DatabaseError(result.replace("\n", " "))
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage
