"""Check that files of weights have the content that they had when they were installed or last read.

An installed file whose size or modification time has changed since then, and any file that was found damaged,
is read completely and compared with its digest (sha256) before it is used. Other files are used at once, and
compared later, while their model serves requests.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mlx_server.engine.models.weights.digest_file import DigestFile
from mlx_server.engine.models.weights.digests import FileDigest, Stamp, installed_of, judge
from mlx_server.model_store import layout
from mlx_server.model_store.files.integrity import CHUNK_BYTES, MANIFEST_KEY, checked_files
from mlx_server.model_store.files.weight_files import UnreadableModel


@dataclass(frozen=True)
class UsedFile:
    """A file of weights, as it was when a load used it.

    `stamp` is the file's size, modification time and inode at that time. `sha256` is the digest (hex) that
    the file must have; None if no digest is known. `was_read` is True if the file was read completely and
    compared with `sha256` before it was used; otherwise, it can be verified later.
    """

    path: Path
    stamp: Stamp
    sha256: str | None
    was_read: bool = False


def check_before_use(folder: Path, digests: DigestFile) -> Generator[None, None, list[UsedFile]]:
    """Read completely those files of weights in `folder` that have changed since they were installed or last
    read, and compare them with their digests. Yield after each chunk.

    Return all files of weights. Raises UnreadableModel if the content of a file has changed.
    """
    recorded = layout.read_manifest(folder).get(MANIFEST_KEY)
    used = []
    for path in checked_files(folder):
        stamp = stamp_of(path)
        installed = installed_of(recorded.get(path.name)) if isinstance(recorded, dict) else None
        judgement = judge(stamp, installed, digests.get(path))
        if judgement.before_use:
            found = yield from _digest(path)
            if found != judgement.sha256:
                raise UnreadableModel(changed_content(path, found, str(judgement.sha256)))
            digests.put(path, FileDigest(stamp, found))
        used.append(UsedFile(path, stamp, judgement.sha256, judgement.before_use))
    return used


def check_unchanged(used: Iterable[UsedFile]) -> None:
    """Raise UnreadableModel if a file has changed since its load began, because the weights may then be a
    mixture.
    """
    for file in used:
        if _stamp_or_none(file.path) != file.stamp:
            raise UnreadableModel(
                f"{file.path}: it was changed while it was being read; ask again when the file is complete"
            )


def changed_content(path: Path, found: str, recorded: str) -> str:
    """Return the error message for a file whose content has the sha256 `found` instead of `recorded`."""
    return (
        f"{path}: it has changed since it was installed or first read (sha256 {found[:12]}…, recorded "
        f"{recorded[:12]}…); fetch the model again"
    )


def read_again(file: UsedFile) -> Iterator[int | str]:
    """Read a file that is in use to its end. Yield the number of bytes of each chunk, and at last the sha256
    (hex).

    No sha256 is yielded if the file is unreadable or has changed since it was loaded. The weights in memory
    then come from its earlier content, which cannot be read again.
    """
    digest = hashlib.sha256()
    try:
        with file.path.open("rb", buffering=0) as stream:
            if _stamp(os.fstat(stream.fileno())) != file.stamp:
                return
            buffer = bytearray(_SMALL_CHUNK_BYTES)
            while size := stream.readinto(buffer):
                digest.update(memoryview(buffer)[:size])
                yield size
            if _stamp(os.fstat(stream.fileno())) != file.stamp:
                return
    except OSError:
        return
    yield digest.hexdigest()


_SMALL_CHUNK_BYTES = 4 * 1024 * 1024


def stamp_of(path: Path) -> Stamp:
    """Return the file's size, modification time and inode. Raises OSError if the file does not exist or is
    inaccessible.
    """
    return _stamp(path.stat())


def _stamp(state: os.stat_result) -> Stamp:
    return Stamp(state.st_size, state.st_mtime_ns, state.st_ino)


def _stamp_or_none(path: Path) -> Stamp | None:
    with contextlib.suppress(OSError):
        return stamp_of(path)
    return None


def _digest(path: Path) -> Generator[None, None, str]:
    """Return a file's sha256 (hex). Yield after each chunk."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            yield
    return digest.hexdigest()
