"""Imitations of file systems whose locks differ from those of a local disk."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import IO

import pytest


def lock_as_on_nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse the lock on what is not open for writing, as Linux does on NFS (flock(2), "NFS details")."""
    real = fcntl.flock

    def flock(file: int | IO[bytes], operation: int) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)


def lock_nothing(monkeypatch: pytest.MonkeyPatch, error: int = errno.ENOTSUP) -> None:
    """Refuse all locks, as macOS does on SMB."""

    def flock(_file: int | IO[bytes], _operation: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", flock)
