"""Take care of a SQLite file: create it for its owner only, lock it, and move it aside if it is corrupt."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.events import emit

BUSY_TIMEOUT_S = 30.0
QUICK_CHECK_UP_TO_BYTES = 64 * 2**20  # takes about 0.1 s; larger files get only the cheap check
QUICK_CHECK_ANY_SIZE = float("inf")
KEPT_COPIES = 3
PARTS = ("-wal", "-shm", "")  # the side files that SQLite keeps beside a file, and the file itself


def _quick_check(connection: sqlite3.Connection) -> str:
    """Return SQLite's verdict on the file: "ok", or what is wrong. Since SQLite 3.44, this includes the
    full-text index.
    """
    return str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])


def move_aside_if_corrupt(
    path: Path,
    check_up_to_bytes: float = QUICK_CHECK_UP_TO_BYTES,
    quick_check: Callable[[sqlite3.Connection], str] = _quick_check,
) -> str:
    """Rename a SQLite file if it is corrupt, or rebuild its full-text index if only that is. Return a
    sentence about what was done; "" if nothing was done, because the file is intact or missing, or cannot be
    checked at this time. Raises OSError or sqlite3.Error if the file cannot be opened, locked or renamed.

    `quick_check` returns "ok", or what is wrong with the file. It is called if the file has at most
    `check_up_to_bytes`. In larger files, only the schema is read, which takes less time. Of the files that
    were renamed, only the newest KEPT_COPIES are kept.
    """
    if not path.exists():
        return ""
    with locked(path.with_name(path.name + ".lock")):
        problem = _corruption(path, check_up_to_bytes, quick_check)
        if "fts5" in problem.lower():
            try:
                notice = rebuild_index(path)
            except sqlite3.OperationalError as error:  # it is locked, or its disk is full: try again later
                emit("database_not_checked", str(error), path=str(path))
                return ""
            except sqlite3.DatabaseError:
                notice = ""  # the tables are damaged too
            if notice and not (problem := _corruption(path, check_up_to_bytes, quick_check)):
                return notice
        if not problem:
            return ""
        kept = path.with_name(f"{path.name}.corrupt-{datetime.now(UTC):%Y%m%dT%H%M%S-%fZ}")
        for suffix in PARTS:
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(kept.with_name(kept.name + suffix))
        _delete_old_copies(path, kept)
    notice = f"{path.name} was corrupt ({problem}); it was renamed to {kept.name}, and a new file was created"
    emit("database_moved_aside", problem, path=str(path), kept=str(kept))
    return notice


def _delete_old_copies(path: Path, newest: Path) -> None:
    """Delete the renamed corrupt copies of the database `path`, each with its side files (`-wal`, `-shm`),
    except for the newest KEPT_COPIES, one of which is `newest`. Copies that cannot be deleted stay until the
    next call.
    """
    with suppress(OSError):
        names = {found.name.removesuffix("-wal").removesuffix("-shm") for found in path.parent.iterdir()}
        copies = {name for name in names if name.startswith(f"{path.name}.corrupt-")} - {newest.name}
        for name in sorted(copies)[: 1 - KEPT_COPIES]:
            for suffix in PARTS:
                path.with_name(name + suffix).unlink(missing_ok=True)


def rebuild_index(path: Path) -> str:
    """Rebuild the full-text index of the SQLite file `path` from its tables, and return a sentence that says
    so. Raises sqlite3.Error if that fails.
    """
    with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as db, db:
        db.execute("INSERT INTO words (words) VALUES ('rebuild')")
    return f"the full-text index of {path.name} was damaged and has been rebuilt"


def _corruption(
    path: Path, check_up_to_bytes: float, quick_check: Callable[[sqlite3.Connection], str]
) -> str:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if path.stat().st_size <= check_up_to_bytes:
            verdict = quick_check(connection)
            return "" if verdict == "ok" else verdict
        return ""
    except sqlite3.OperationalError as error:
        # "disk I/O error", "unable to open", "locked": the file may be intact, so leave it.
        emit("database_not_checked", str(error), path=str(path))
        return ""
    except sqlite3.DatabaseError as error:
        return str(error)
    finally:
        connection.close()


@contextmanager
def locked(path: Path, blocking: bool = True) -> Iterator[bool]:
    """Hold a lock on the file `path`, which the kernel frees when this process dies. Yield True; or False if
    `blocking` is False and another process has the lock.
    """
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
