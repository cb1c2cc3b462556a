"""The files: one a block, written aside, synced and renamed; so a file is whole or not there.

Any number of engines may share a folder. A name says what is in it, so two that write the same block write
the same bytes, and one that has lost a file to another's limit sees a miss.
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

SUFFIX = ".safetensors"
ASIDE = ".tmp"
_BIRTH = ".folder"
"""An empty file that is as old as the folder. The folder's own number is given again to the next one."""

_STRANGERS_S = 3600.0
"""A file aside is swept when it is so old, whoever wrote it: PIDs come again."""

_LIFE = uuid.uuid4().hex[:8]
"""Tells this process from an earlier one of the same PID."""


@dataclass(frozen=True)
class Contents:
    """Key and size of each file, the longest unused first; and how many left-overs were swept."""

    files: tuple[tuple[str, int], ...]
    swept: int


class Folder:
    """Files by key. Every method but `mark` may raise OSError; FileNotFoundError for what is gone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._numbers = itertools.count()

    def open(self) -> Contents:
        """Makes it, looks through it, and sweeps what writers have left behind."""
        found: list[tuple[int, str, int]] = []
        swept = 0
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(self.path / _BIRTH, os.O_CREAT | os.O_RDONLY, 0o600))
        with os.scandir(self.path) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # gone while we look, or none of ours
                    status = entry.stat(follow_symlinks=False)
                    if entry.name.endswith(ASIDE):
                        swept += self._sweep(Path(entry.path), status.st_mtime)
                    elif entry.name.endswith(SUFFIX) and entry.is_file(follow_symlinks=False):
                        key = entry.name.removesuffix(SUFFIX)
                        found.append((status.st_mtime_ns, key, status.st_size))
        return Contents(tuple((key, size) for _, key, size in sorted(found)), swept)

    def mark(self) -> tuple[int, ...] | None:
        """Tells this folder from one that was made anew in its place; None where there is none."""
        try:
            status = (self.path / _BIRTH).stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_ctime_ns

    def read(self, key: str) -> bytes:
        return self._file(key).read_bytes()

    def write(self, key: str, parts: Sequence[bytes | memoryview]) -> None:
        """All of it, or nothing."""
        aside = self.path / f"{key}.{os.getpid()}-{_LIFE}-{next(self._numbers)}{ASIDE}"
        try:
            with aside.open("wb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            aside.rename(self._file(key))
        except BaseException:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            raise

    def used(self, key: str) -> None:
        """Its time is what the next engine goes by; to the nanosecond, the kernel's own clock is coarse."""
        now = time.time_ns()
        os.utime(self._file(key), ns=(now, now))

    def remove(self, key: str) -> None:
        self._file(key).unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        return self.path / (key + SUFFIX)

    def _sweep(self, aside: Path, modified: float) -> bool:
        """Unless its writer lives; whether it did."""
        writer = aside.name.removesuffix(ASIDE).rpartition(".")[2].split("-")
        pid = int(writer[0]) if writer[0].isascii() and writer[0].isdecimal() else None
        lives = pid is not None and (_LIFE in writer if pid == os.getpid() else _alive(pid))
        if time.time() - modified <= _STRANGERS_S and (lives or pid is None):
            return False
        aside.unlink(missing_ok=True)
        return True


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
