"""A disk for tests that can be filled to its last byte and freed again while processes write to it."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

SIZE_MB = 8


class SmallDisk:
    """A small tmpfs mounted on `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, *pids: int) -> None:
        """Write until there is no space left. `pids` are the processes that use the disk."""
        with (self.folder / "filler").open("ab", buffering=0) as filler:
            for size in (1 << 16, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        filler.write(b"x" * size)

    def free(self) -> None:
        (self.folder / "filler").unlink()


class SizeLimit:
    """The same for a user who may not mount: the kernel refuses what the processes write to files (EFBIG)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._limited: set[int] = set()

    def fill(self, *pids: int) -> None:
        """Limit `pids`, their descendants, and what this process starts from now on."""
        self._limited = self._with_descendants({os.getpid(), *pids})
        self._limit(0)

    def free(self) -> None:
        self._limited |= self._with_descendants(self._limited)
        self._limit(resource.RLIM_INFINITY)

    def _with_descendants(self, pids: set[int]) -> set[int]:
        found = set(pids)
        for pid in pids:
            with contextlib.suppress(psutil.Error):
                found |= {child.pid for child in psutil.Process(pid).children(recursive=True)}
        return found

    def _limit(self, size: int) -> None:
        for pid in self._limited:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


FullDisk = SmallDisk | SizeLimit


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[FullDisk]:
    """Yield a disk on `folder`: a mounted one if this user may mount it (CI's may), else a limit on file
    sizes.
    """
    if sys.platform != "linux":
        pytest.skip("only on Linux can a test fill a disk, or limit another process's files")
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m,mode=700", "none", str(folder)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        yield SizeLimit(folder)
        return
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
