"""The file with the digests of all weights that were read through, in $VESTAL_HOME. Any thread may use it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from mlx_server.engine.models.weights.digests import FileDigest, digest_of
from vestal.best_effort.files import replace_file


class DigestFile:
    """Digests by the path of their file. Without a `path` they are only kept in memory.

    A file that is missing or damaged has no digests: weights are then read through once more. One that cannot
    be written is tried again at the next digest.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._digests: dict[str, FileDigest] | None = None

    def get(self, file: Path) -> FileDigest | None:
        """Return the digest of an earlier read of `file`."""
        with self._lock:
            return self._read().get(str(file))

    def put(self, file: Path, digest: FileDigest) -> None:
        """Record the digest of `file`, and forget those of files that are gone."""
        with self._lock:
            known = {path: found for path, found in self._read().items() if Path(path).exists()}
            known[str(file)] = digest
            self._digests = known
            if self._path is not None:
                files = {path: found.as_json() for path, found in sorted(known.items())}
                replace_file(self._path, json.dumps({"files": files}, indent=1), "weight_digests")

    def _read(self) -> dict[str, FileDigest]:
        if self._digests is None:
            self._digests = {} if self._path is None else _read(self._path)
        return self._digests


def _read(path: Path) -> dict[str, FileDigest]:
    try:
        files = json.loads(path.read_text("utf-8"))["files"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {file: digest for file, value in files if (digest := digest_of(value)) is not None}
