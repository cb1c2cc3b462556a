"""The file in $VESTAL_HOME with the digests of all files of weights that were read completely. Any thread may
use it, and several engines, such as one that ends and its successor.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path

from mlx_server.engine.models.weights.digests import FileDigest, digest_of
from vestal.best_effort.files import FileWatch, replace_file


class DigestFile:
    """Stores a digest for each file of weights, by the path of that file. Without a `path`, the digests are
    only held in memory.

    If the file `path` is missing or damaged, it counts as empty, so weights are read completely once more. If
    it cannot be written, the next `put` tries again. The file is read again whenever it has changed, because
    another engine may have written it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._watch = None if path is None else FileWatch(path)
        self._stored: dict[str, FileDigest] = {}  # the content of the file
        self._unwritten: dict[str, FileDigest] = {}  # what `put` could not write into it

    def get(self, file: Path) -> FileDigest | None:
        """Return the digest that was last recorded for `file`; None if there is none. The file may have
        changed since, so the caller must check whether its size, modification time and inode still are those
        in the `stamp` of the digest.
        """
        with self._lock:
            return self._known().get(str(file))

    def put(self, file: Path, digest: FileDigest, *, keeps_damage: bool = False) -> None:
        """Record the digest of `file`, and remove the digests of files that no longer exist. The digests of
        files that cannot be reached, for example on a disk with an error, are kept.

        With `keeps_damage`, a file that is recorded as damaged stays so, unless it has changed since. Another
        engine may have found the damage while the caller read the file.
        """
        with self._lock:
            known = self._known()
            earlier = known.get(str(file))
            if keeps_damage and earlier and earlier.is_damaged and earlier.stamp == digest.stamp:
                return
            self._unwritten[str(file)] = digest
            if self._path is not None:
                kept = {path: found for path, found in known.items() if not _is_gone(path)} | self._unwritten
                files = {path: found.as_json() for path, found in sorted(kept.items())}
                text = json.dumps({"files": files}, indent=1)
                if replace_file(self._path, text, "weight_digests") is None:
                    self._unwritten.clear()

    def _known(self) -> dict[str, FileDigest]:
        """Return the digests in the file and those that could not be written into it, by path."""
        if self._path is not None and self._watch is not None and not self._watch.is_unchanged():
            with contextlib.suppress(OSError):  # without a free file descriptor, what was read before counts
                self._stored = _read(self._path)
                self._watch.confirm()
        return self._stored | self._unwritten


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
    """Return the digests in the file; none if it is missing or damaged. Raises OSError if it cannot be read
    for another reason.
    """
    try:
        files = json.loads(path.read_text("utf-8"))["files"].items()
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {file: digest for file, value in files if (digest := digest_of(value)) is not None}
