"""The journal's SQLite file: open it, check it, and replace it by an empty one if damaged or deleted."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from vestal.best_effort.files import create_private_file

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
CHECK_STEPS = 10_000  # SQLite executes this many instructions between two checks of the deadline
KEPT_COPIES = 3

Row = tuple[int, float, str, str, str, str]
"""An event's columns, in the order of COLUMNS."""

FileId = tuple[int, int]
"""A file's device and inode, by which a file is known from another one that took its path."""


class JournalDatabase:
    """One connection to the journal's SQLite file. Every method may raise sqlite3.Error or OSError.

    `replaced` says why the file was replaced by an empty one, and is "" if it was not. The journal sets it to
    "" once it has reported it, so that the next replacement is reported even if it has the same reason.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._file_id: FileId | None = None
        self._was_checked = False
        self.replaced = ""

    @property
    def is_open(self) -> bool:
        """Return whether the connection to the file is open."""
        return self._connection is not None

    def open(self) -> bool:
        """Open the file unless it is already open. Return True if this call opened it.

        If the file was deleted or exchanged while it was open, open the file that is at the path, and create
        it if there is none. A damaged file is renamed, and an empty one takes its place.
        """
        if self._connection is not None:
            if self.file_at_path() == self._file_id:
                return False
            self.close()
            self.replaced = "it was deleted or exchanged while it was open"
            self._delete_side_files()
        found = self.file_at_path()
        try:
            self._connection = _connect(self._path, check=not self._was_checked)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self.put_aside(str(error), found)
            self._connection = _connect(self._path, check=False)
        self._was_checked = True  # check once only: a broken disk may cause many calls of `open`
        self._file_id = self.file_at_path()
        return True

    @property
    def opened_file(self) -> FileId | None:
        """Return the id (device and inode) of the file that `open` opened last, even if the file is closed by
        now; None if `open` has opened no file yet.
        """
        return self._file_id

    def file_at_path(self) -> FileId | None:
        """Return the id (device and inode) of the file that is at the journal's path now; None if there is
        none.
        """
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def put_aside(self, damage: str, damaged: FileId | None) -> None:
        """Rename the journal's file, which is damaged, so that the next `open` creates an empty one. Only the
        newest KEPT_COPIES damaged files are kept.

        `damaged` identifies the damaged file. If it is None, or if another file is at the path by now, do
        nothing. `damage` describes the damage in words. Set the attribute `replaced` to a text with this
        description and the new name of the file. Raises OSError if the file cannot be renamed; `replaced` is
        then not changed.
        """
        if damaged is None or damaged != self.file_at_path():
            return
        self.close()
        copy = self._path.with_name(f"{self._path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S-%fZ}")
        self._path.replace(copy)
        self._delete_side_files()
        self.replaced = f"it was damaged ({damage}) and renamed to {copy.name}"
        others = [each for each in damaged_copies(self._path) if each != copy]  # the clock may have gone back
        for old in others[: 1 - KEPT_COPIES]:
            old.unlink(missing_ok=True)

    def last_seq(self) -> int:
        """Return the highest sequence number that was ever given to an event in this file; 0 if there was
        none.
        """
        rows = self._execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchall()
        return int(rows[0][0]) if rows else 0

    def insert(self, entries: Iterable[dict[str, Any]], delete_up_to: int) -> None:
        """Write events, and delete all events with numbers up to `delete_up_to`, in one transaction. Each of
        `entries` is an event as a dict whose `seq` is its number; it replaces a stored event of the same
        number.
        """
        rows = [row_of(entry) for entry in entries]
        connection = self._opened()
        with connection:
            connection.executemany(INSERT, rows)
            connection.execute("DELETE FROM events WHERE seq <= ?", (delete_up_to,))

    def rows(self, condition: str, *arguments: int | str) -> list[Row]:
        """Return the rows of the events that `condition`, the WHERE and ORDER BY part of the SQL query,
        selects. `arguments` are the values of its placeholders.
        """
        query = f"SELECT {COLUMNS} FROM events {condition}"
        connection = self._opened()
        connection.text_factory = str  # for the thousands of rows of a start: it takes half as long
        try:
            return connection.execute(query, arguments).fetchall()
        except sqlite3.OperationalError as error:
            if "decode" not in str(error):
                raise
        finally:
            connection.text_factory = _decode
        return connection.execute(query, arguments).fetchall()

    def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` with the connection, in one transaction, and return its result. `work` may use any table
        but `events`, which has methods of its own.
        """
        connection = self._opened()
        with connection:
            return work(connection)

    def close(self) -> None:
        """Close the connection. The next `open` connects again."""
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

    def _delete_side_files(self) -> None:
        """Delete the write-ahead log of a file that is gone, or SQLite would replay it into the new file."""
        for suffix in SIDE_FILES:
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether the error means that the file's content is damaged. A full disk does not mean this."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in DAMAGE


def find_damage(path: Path) -> str:
    """Return a description of the damage to the journal's pages; "" if they are intact or there is no
    journal.

    Nothing is written, so the agent may have the file open. A file that cannot be opened counts as intact
    unless SQLite reports damage.
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
    """Open the journal's SQLite file for reading only. Raises sqlite3.Error if that fails."""
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
    database.text_factory = _decode
    return database


def damaged_copies(path: Path) -> list[Path]:
    """Return the renamed files of damaged journals, in the order of the times in their names."""
    return sorted(path.parent.glob(f"{path.name}.damaged-*"))


def event_from_row(row: Row) -> dict[str, Any]:
    """Return the event, as a dict, of a row whose columns are in the order of COLUMNS."""
    seq, ts, component, event, cause, text = row
    fields = fields_from(text)
    return {"seq": seq, "ts": ts, "component": component, "event": event, "cause": cause, "fields": fields}


_decode_json = json.JSONDecoder().raw_decode


def fields_from(text: str) -> Any:
    """Parse the JSON in the last column of a row, and return the event's fields. Text that is not JSON is
    returned as `{"unreadable": text}`.
    """
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
    """Open the file, and create it if it is missing. With `check`, verify its pages too. Raises
    sqlite3.DatabaseError if the file cannot be opened or is damaged.
    """
    _make_private(path)
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
    return database


def _make_private(path: Path) -> None:
    """Create the journal's file if it is missing, and let only its owner read the file and its side files.
    Call this before SQLite opens the file, because SQLite gives new side files the mode that the file has at
    that time.
    """
    create_private_file(path)
    for each in (path, *(path.with_name(path.name + suffix) for suffix in SIDE_FILES)):
        with contextlib.suppress(OSError):
            if each.is_file():
                each.chmod(0o600)


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _check(database: sqlite3.Connection) -> None:
    """Check the pages of the database. Raises sqlite3.DatabaseError if one is damaged. A check that takes
    longer than CHECK_TIMEOUT_S is ended, and counts as passed.
    """
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
