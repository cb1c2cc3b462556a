"""The disk level: one file a block, written aside, synced and renamed; so a file is whole or not there.

Any number of engines may share a folder. A name says what is in it, so two that write the same block write
the same bytes, and one that has lost a file to another's limit sees a miss.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

SUFFIX = ".safetensors"
_ASIDE = ".tmp"
_STRANGERS_S = 3600.0
"""A file aside whose writer cannot be told is swept when it is so old."""


class Folder:
    """Files by key. Every method but `scan` may raise OSError; FileNotFoundError for what is gone."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def scan(self) -> list[tuple[str, int]]:
        """Key and size of each block there is, the longest unused first; sweeps what writers left behind."""
        found: list[tuple[float, str, int]] = []
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            entries = list(os.scandir(self.path))
        except OSError:
            return []
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.name.endswith(_ASIDE):
                    self._sweep(Path(entry.path), entry.stat().st_mtime)
                elif entry.name.endswith(SUFFIX):
                    status = entry.stat()
                    found.append((status.st_mtime, entry.name.removesuffix(SUFFIX), status.st_size))
        return [(key, size) for _, key, size in sorted(found)]

    def read(self, key: str) -> bytes:
        return self._file(key).read_bytes()

    def write(self, key: str, parts: Sequence[bytes | memoryview]) -> None:
        """All of it, or nothing."""
        aside = self.path / f"{key}.{os.getpid()}{_ASIDE}"
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
        """Its time is what the next engine goes by."""
        os.utime(self._file(key))

    def remove(self, key: str) -> None:
        self._file(key).unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        return self.path / (key + SUFFIX)

    def _sweep(self, aside: Path, modified: float) -> None:
        """Unless its writer lives."""
        pid = aside.name.removesuffix(_ASIDE).rpartition(".")[2]
        if pid.isdigit():
            # A number of our own is an earlier life's: PIDs come again, and this one has written nothing yet.
            if int(pid) == os.getpid() or not _alive(int(pid)):
                aside.unlink(missing_ok=True)
        elif time.time() - modified > _STRANGERS_S:
            aside.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
