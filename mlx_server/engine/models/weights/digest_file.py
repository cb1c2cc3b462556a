"""The file in $VESTAL_HOME with the digests of all files of weights that were read completely. Any thread may
use it.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from mlx_server.engine.models.weights.digests import FileDigest, digest_of
from vestal.best_effort.files import replace_file


class DigestFile:
    """Stores a digest for each file of weights, by the path of that file. Without a `path`, the digests are
    only held in memory.

    If the file `path` is missing or damaged, it counts as empty, so weights are read completely once more. If
    it cannot be written, the next `put` tries again.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._digests: dict[str, FileDigest] | None = None

    def get(self, file: Path) -> FileDigest | None:
        """Return the digest that was last recorded for `file`; None if there is none. The file may have
        changed since, so the caller must check whether its size, modification time and inode still are those
        in the `stamp` of the digest.
        """
        with self._lock:
            return self._read().get(str(file))

    def put(self, file: Path, digest: FileDigest) -> None:
        """Record the digest of `file`, and remove the digests of files that no longer exist. The digests of
        files that cannot be reached, for example on a disk with an error, are kept.
        """
        with self._lock:
            known = {path: found for path, found in self._read().items() if not _is_gone(path)}
            known[str(file)] = digest
            self._digests = known
            if self._path is not None:
                files = {path: found.as_json() for path, found in sorted(known.items())}
                replace_file(self._path, json.dumps({"files": files}, indent=1), "weight_digests")

    def _read(self) -> dict[str, FileDigest]:
        if self._digests is None:
            self._digests = {} if self._path is None else _read(self._path)
        return self._digests


def _is_gone(path: str) -> bool:
    """Return True if it is certain that the file `path` does not exist; False if it exists, or if that is
    unknown because its folder or disk cannot be read. An unreadable disk raises no error here, since the file
    may belong to another model than the one whose digest is being recorded.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no file can have this name
        return True
    except OSError:
        return False
    return False


def _read(path: Path) -> dict[str, FileDigest]:
    try:
        files = json.loads(path.read_text("utf-8"))["files"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {file: digest for file, value in files if (digest := digest_of(value)) is not None}
