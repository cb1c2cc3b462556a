"""The folder of the answers' files, and one such file while it is written.

Two gateways must not use one folder. `AnswerFolder.lock` therefore locks a file beside the folder, where it
is deleted less easily than inside, and `renew_lock` locks it again if it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mlx_server.gateway.answer_log.file_names import FileName
from vestal.best_effort.failures import FAILURES
from vestal.best_effort.files import replace_file
from vestal.platform.file_lock import try_lock

WHAT = "answer_log"
_EXPIRED = "expired"
_LOCK = "lock"
CHECK_LOCK_S = 5.0


class LogInUse(Exception):
    """Raised if another process uses the answer log in the folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"another gateway uses the answer log in {folder}")


@dataclass(frozen=True)
class FoundFile:
    """A file of an earlier process. `written_s` is when the file was last written, in seconds since 1970."""

    name: FileName
    size_bytes: int
    written_s: float


class AnswerFolder:
    """The folder of the answer log. Its methods raise OSError if the file system fails, unless their
    docstrings say otherwise.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None
        self._check_lock_at = float("-inf")

    def make(self) -> None:
        """Create the folder if it is missing, and restrict access to its owner (mode 0700)."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700, exist_ok=True)
        if self.path.stat().st_mode & 0o077:
            self.path.chmod(0o700)

    def lock(self) -> None:
        """Take the lock, and hold it until `unlock` or the end of the process. Raises LogInUse if another
        process holds the lock.
        """
        self._lock = try_lock(self._lock_path)
        if self._lock is None:
            raise LogInUse(self.path)

    def is_lock_check_due(self, now: float) -> bool:
        """Return whether to call `renew_lock` at the time `now` (monotonic seconds): it is due every
        CHECK_LOCK_S seconds.
        """
        if now < self._check_lock_at:
            return False
        self._check_lock_at = now + CHECK_LOCK_S
        return True

    def renew_lock(self) -> None:
        """If the lock file was deleted or replaced since it was locked, lock the file that is there now,
        because the next gateway will look only at that file. Do nothing if this object holds no lock. Never
        raises OSError.

        If another gateway has already locked the new file, keep the old lock, and record in FAILURES, which
        holds the failed writes of this process, that both use the folder.
        """
        if self._lock is None:
            return
        with contextlib.suppress(OSError):
            if not self._is_lock_in_place(self._lock):
                renewed = try_lock(self._lock_path)
                if renewed is None:
                    FAILURES.failed(WHAT, LogInUse(self.path), count=0, target=_LOCK)
                    return
                self.unlock()
                self._lock = renewed
            FAILURES.succeeded(WHAT, target=_LOCK)

    def _is_lock_in_place(self, lock: int) -> bool:
        try:
            return os.path.samestat(os.fstat(lock), self._lock_path.stat())
        except FileNotFoundError:
            return False

    @property
    def _lock_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.lock")

    def unlock(self) -> None:
        """Release the lock, if it is held."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def files(self) -> list[FoundFile]:
        """Return the answers' files, in the order in which the answers' requests were accepted. Other files
        in the folder are ignored.
        """
        found: list[FoundFile] = []
        with os.scandir(self.path) as entries:
            for entry in entries:
                name = FileName.parse(entry.name)
                if name is not None and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    found.append(FoundFile(name, status.st_size, status.st_mtime))
        return sorted(found, key=lambda file: file.name.number)

    def read(self, name: FileName) -> bytes:
        """Return the whole content of a file."""
        return self._path_of(name).read_bytes()

    def rename(self, name: FileName, new_name: FileName) -> None:
        """Rename the file `name` to `new_name`."""
        os.rename(self._path_of(name), self._path_of(new_name))

    def remove(self, name: FileName) -> None:
        """Delete a file if it exists."""
        self._path_of(name).unlink(missing_ok=True)

    def create(self, name: FileName) -> int:
        """Create a file that does not exist yet, and return a descriptor for writing.

        First create the folder if it is missing, and take its lock (see `lock`) if this object does not hold
        it: somebody may have deleted the folder, or the disk may have been full when the gateway started.
        Raises OSError if the file exists or cannot be created, with EBUSY if another gateway holds the lock.
        """
        if self._lock is None or not self.path.is_dir():
            self.make()
        if self._lock is None:
            try:
                self.lock()
            except LogInUse as in_use:
                raise OSError(errno.EBUSY, str(in_use)) from in_use
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.open(self._path_of(name), flags, 0o600)

    def reopen(self, name: FileName, size_bytes: int) -> int:
        """Truncate an existing file to `size_bytes`, and return a descriptor for writing to it."""
        descriptor = os.open(self._path_of(name), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(descriptor, size_bytes)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write to an open file at `offset`, and return how many bytes were written."""
        return os.pwrite(descriptor, data, offset)

    def expired_ids(self) -> list[str]:
        """Return the ids that `write_expired_ids` wrote last; an empty list if they cannot be read. Never
        raises OSError.
        """
        with contextlib.suppress(OSError, ValueError):
            return (self.path / _EXPIRED).read_text("ascii").split()
        return []

    def write_expired_ids(self, ids: Iterable[str]) -> None:
        """Replace the stored list of the ids of answers that have been deleted as expired. Never raises
        OSError.
        """
        replace_file(self.path / _EXPIRED, "".join(f"{answer_id}\n" for answer_id in ids), "expired_answers")

    def _path_of(self, name: FileName) -> Path:
        return self.path / str(name)


class AnswerFile:
    """A file of one answer, to which bytes are appended. `size_bytes` is how many bytes have been written.

    `exists` says whether the file exists already. `append` raises OSError if an existing file is missing, or
    if a new file exists already, so that no file can lack its beginning.
    """

    def __init__(self, folder: AnswerFolder, name: FileName, size_bytes: int = 0, *, exists: bool) -> None:
        self.name = name
        self.size_bytes = size_bytes
        self._folder = folder
        self._exists = exists
        self._descriptor: int | None = None

    @property
    def is_open(self) -> bool:
        return self._descriptor is not None

    def append(self, data: bytes) -> None:
        """Write all of `data` to the end of the file, which is opened first if necessary. After an OSError,
        `size_bytes` includes the part that was written.
        """
        if self._descriptor is None:
            if self._exists:
                self._descriptor = self._folder.reopen(self.name, self.size_bytes)
            else:
                self._descriptor = self._folder.create(self.name)
                self._exists = True
        view = memoryview(data)
        while view:
            written = self._folder.write(self._descriptor, view, self.size_bytes)
            self.size_bytes += written
            view = view[written:]

    def read(self) -> bytes:
        """Return all bytes that were written."""
        return self._folder.read(self.name)[: self.size_bytes] if self._exists else b""

    def rename(self, name: FileName) -> None:
        """Rename the file, which may be open. A file that does not exist yet is created with this name."""
        if self._exists:
            self._folder.rename(self.name, name)
        self.name = name

    def end(self) -> None:
        """Close the file and rename it to mark its answer as ended."""
        self.close()
        self.rename(self.name.as_ended())

    def remove(self) -> None:
        """Close the file and delete it."""
        self.close()
        self._folder.remove(self.name)

    def close(self) -> None:
        """Close the file. The next `append` opens it again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):  # some file systems report here that a write has failed
                os.close(descriptor)
