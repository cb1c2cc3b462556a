"""Small files that are replaced as a whole, such as PID files. A failure is counted and returned."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from pathlib import Path

from vestal.best_effort.failures import FAILURES

DISK_FAULTS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG})
"""Error numbers that describe the present state of the disk, and do not mean that the path is wrong."""

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""The error numbers of: no descriptor left to the process, none left to the machine, no memory."""

CHANGED_LATELY_S = 2.0  # some file systems keep times in whole seconds


def replace_file(path: Path, text: str, what: str, *, again: bool = False) -> OSError | None:
    """Replace the file atomically by one with this text, which only the owner may read. Return the error if
    that fails.

    A missing folder is created. A failure is counted as a failed write of the kind `what`, unless `again`
    says that this attempt repeats a write whose failure is counted already.
    """
    try:
        write_file(path, text)
    except OSError as error:
        FAILURES.failed(what, error, count=0 if again else 1, target=path)
        return error
    FAILURES.succeeded(what, target=path)
    return None


def write_file(path: Path, text: str, *, durable: bool = False) -> None:
    """Replace the file atomically by one with this text, which only the owner may read. A missing folder is
    created. Raises OSError if that fails, and leaves no temporary file. The error names the folder if the
    system named no file, as for a full disk. Unlike `replace_file`, this function does not count the failure.

    With `durable`, the text is on the disk before the file appears, so that a power cut leaves no incomplete
    file.
    """
    make_private_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path.parent)
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def create_private_file(path: Path) -> None:
    """Create an empty file that only its owner can read and write, unless the file exists. If that is
    impossible, do nothing: the code that opens the file later reports the reason.

    This is for SQLite, which itself creates a database file that everyone may read, and gives its side files
    the mode of the database file.
    """
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def make_private_folder(folder: Path) -> None:
    """Create the folder and its missing parents, readable by their owner only. `mkdir -p` would open the
    parents to other users. Raises OSError if that fails.
    """
    if not folder.is_dir():
        make_private_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


class FileWatch:
    """Checks by one cheap system call whether a file may have changed since the caller read it.

    It may report a change that did not happen, but it misses none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: Stamp | None = None
        self._read: Stamp | None = None

    def is_unchanged(self) -> bool:
        """Return whether the file has certainly not changed since the last `confirm`."""
        self._seen = _stamp(self._path)
        return self._seen is not None and self._seen == self._read

    def confirm(self) -> None:
        """Make the file's state at the last call of `is_unchanged` the one that later calls compare with. The
        caller has read the file since that call, and found its content correct.
        """
        self._read = self._seen

    def forget(self) -> None:
        """Undo the last `confirm`, because the caller is about to replace the file. Until the next `confirm`,
        `is_unchanged` returns False.
        """
        self._read = None


Stamp = tuple[int, int, int, int]


def _stamp(path: Path) -> Stamp | None:
    """Return values that differ after each change of the file.

    None if there is no file, or if it changed so recently that another change might leave the same values.
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    if abs(time.time() - found.st_ctime) < CHANGED_LATELY_S:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns


class KeptFile:
    """A small file that one process owns. `keep`, which the owner calls regularly, writes the file again if
    it could not be written, was deleted, or no longer has the text of the last `write`.

    `what` is the kind of write, such as `pid_file`, under which `FAILURES` counts failed writes.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        self._what = what
        self._text: str | None = None
        self._watch = FileWatch(path)

    def write(self, text: str) -> OSError | None:
        """Replace the content of the file by `text`, which `keep` maintains from now on. Return None, or the
        error if the write fails; the next call of `keep` then tries to write `text` again.
        """
        self._text = text
        self._watch.forget()
        return replace_file(self.path, text, self._what)

    def keep(self) -> bool:
        """Write the file again if it is missing or its text was changed. Return True if it was written."""
        if self._text is None or self._watch.is_unchanged():
            return False
        if self._is_intact():  # the file may already have had this text when it could not be written
            self._watch.confirm()
            FAILURES.succeeded(self._what, target=self.path)
            return False
        return replace_file(self.path, self._text, self._what, again=True) is None

    def forget(self) -> None:
        """Stop rewriting the file and reporting its failures. The file itself stays as it is."""
        self._text = None
        FAILURES.succeeded(self._what, target=self.path)

    def remove(self) -> None:
        """Delete the file, if it can be deleted, and stop rewriting it."""
        self.forget()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _is_intact(self) -> bool:
        try:
            return self.path.read_text() == self._text
        except (OSError, ValueError):
            return False
