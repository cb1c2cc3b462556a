"""The folder of block files. A file is written under a temporary name and then renamed, so it is either
complete or absent.

Several engines may share a folder. A file's name determines its contents, so two engines that write the same
block write the same bytes. A file that another engine has deleted counts as not found.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vestal.platform.hidden_files import is_hidden

SUFFIX = ".safetensors"
TEMPORARY = ".tmp"

FolderId = tuple[int, ...]
"""Identifies a folder: it differs for the folder that is created after this one was deleted."""

_BIRTH = ".folder"
"""An empty file that is created with the folder and identifies it. The folder's own inode number would not
do, because the next folder may get the same number."""

_ORPHAN_AGE_S = 3600.0
"""A temporary file of this age is deleted even if its writer seems alive, because PIDs are reused."""

_RUN_ID = uuid.uuid4().hex[:8]
"""Distinguishes this process from an earlier one with the same PID."""


@dataclass(frozen=True)
class FolderContents:
    """The key and the size in bytes of each file, the least recently used first; and how many temporary files
    were deleted (`swept`).
    """

    files: tuple[tuple[str, int], ...]
    swept: int


class BlockFolder:
    """The folder in which each block has a file that is named by its key.

    Every method except `identity` raises OSError if the folder or file cannot be used (FileNotFoundError if a
    file is missing).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._numbers = itertools.count()

    def open(self) -> FolderContents:
        """Create the folder if it is missing, list its files, and delete temporary files whose writers have
        ended.
        """
        found: list[tuple[int, str, int]] = []
        swept = 0
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(self.path / _BIRTH, os.O_CREAT | os.O_RDONLY, 0o600))
        with os.scandir(self.path) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # deleted meanwhile, or not one of ours
                    status = entry.stat(follow_symlinks=False)
                    if entry.name.endswith(TEMPORARY):
                        swept += self._delete_orphan(Path(entry.path), status.st_mtime)
                    elif (
                        entry.name.endswith(SUFFIX)
                        and not is_hidden(entry.name)
                        and entry.is_file(follow_symlinks=False)
                    ):
                        key = entry.name.removesuffix(SUFFIX)
                        found.append((status.st_mtime_ns, key, status.st_size))
        return FolderContents(tuple((key, size) for _, key, size in sorted(found)), swept)

    def identity(self) -> FolderId | None:
        """Return a value that changes if the folder is deleted and created again; None if there is
        no folder.
        """
        try:
            status = (self.path / _BIRTH).stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_ctime_ns

    def read(self, key: str) -> bytes:
        return self._file(key).read_bytes()

    def write(self, key: str, parts: Sequence[bytes | memoryview]) -> None:
        """Write the file of `key`, either completely or not at all."""
        temporary = self.path / f"{key}.{os.getpid()}-{_RUN_ID}-{next(self._numbers)}{TEMPORARY}"
        try:
            with temporary.open("wb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self._file(key))
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    def touch(self, key: str) -> None:
        """Set the modification time of the file to the current time, because the next engine evicts files in
        the order of their times.

        The time is given in nanoseconds, because the clock that the kernel uses for files is coarse.
        """
        now = time.time_ns()
        os.utime(self._file(key), ns=(now, now))

    def remove(self, key: str) -> None:
        self._file(key).unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        return self.path / (key + SUFFIX)

    def _delete_orphan(self, temporary: Path, modified: float) -> bool:
        """Delete a temporary file, unless the process that writes it is alive and the file is recent. Return
        True if it was deleted.
        """
        writer = temporary.name.removesuffix(TEMPORARY).rpartition(".")[2].split("-")
        pid = int(writer[0]) if writer[0].isascii() and writer[0].isdecimal() else None
        lives = pid is not None and (_RUN_ID in writer if pid == os.getpid() else _alive(pid))
        if time.time() - modified <= _ORPHAN_AGE_S and (lives or pid is None):
            return False
        temporary.unlink(missing_ok=True)
        return True


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
