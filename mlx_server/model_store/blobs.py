"""Store the files that a client uploads to make a model, each named by its sha256:
`<store>/.blobs/sha256-HEX`.

A file is deleted after a model was made from it, or once it is a day old: by the next upload, fetch or
change of a model, or when a gateway starts. The day begins anew when a client asks whether the file is there,
and when a model is made from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mlx_server.model_store import disk
from mlx_server.model_store.errors import ModelStoreError

KEPT_S = 86_400.0
_DIGEST = re.compile(r"sha256[:-](?P<hex>[0-9a-fA-F]{64})")
_FOLDER, _UPLOADING, _WORKING = ".blobs", ".uploading-", ".working-"


def delete_expired(store: Path) -> None:
    """Delete the uploads in the model store, complete or not, and the folders in which models were converted,
    if they have not changed for a day. What cannot be deleted stays without an error.
    """
    with contextlib.suppress(OSError):
        for path in (store / _FOLDER).iterdir():
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > KEPT_S:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


class Blobs:
    """The uploaded files of one model store. `free` returns the free bytes of the disk that holds a given
    folder.
    """

    def __init__(self, store: Path, free: disk.FreeBytes = disk.free_bytes) -> None:
        self._store, self._folder = store, store / _FOLDER
        self._free = free

    def path(self, digest: str) -> Path:
        """Return the path of the uploaded file with this digest, whether or not it exists. Raises
        ModelStoreError (`invalid_digest`) if `digest` is not a sha256.
        """
        match = _DIGEST.fullmatch(digest)
        if match is None:
            raise ModelStoreError(
                "invalid_digest",
                f"{digest[:80]!r} is not a digest.",
                "Write it as sha256: and 64 hex digits.",
            )
        return self._folder / f"sha256-{match['hex'].lower()}"

    def has(self, digest: str) -> bool:
        """Return True if the file with this digest was uploaded. The file is then kept for another day,
        because the client will not upload it again. Raises ModelStoreError (`invalid_digest`) if `digest` is
        not a sha256.
        """
        path = self.path(digest)
        with contextlib.suppress(OSError):
            os.utime(path)
        return path.is_file()

    def upload(self, digest: str, size_bytes: int = 0) -> Upload:
        """Begin the upload of the file with this digest. `size_bytes` is its size if the client announced
        it, else 0.

        Raises ModelStoreError: `invalid_digest` if `digest` is not a sha256, `store_unwritable` if the
        store's folder cannot be written, `disk_full` if the disk has less free space than the file and the
        reserve.
        """
        target = self.path(digest)
        with self._write_errors_explained(target.name[:19], size_bytes):
            self._prepare()
            disk.require_space(target.name[:19], size_bytes, self._folder, self._free)
            descriptor, path = tempfile.mkstemp(dir=self._folder, prefix=_UPLOADING)
        return Upload(target, Path(path), os.fdopen(descriptor, "wb"), self._free, size_bytes)

    @contextlib.contextmanager
    def working_folder(self) -> Iterator[Path]:
        """Yield a new folder on the disk of the store, which is deleted when the `with` block ends. Raises
        ModelStoreError (`store_unwritable` or `disk_full`) if the store cannot be written.
        """
        with self._write_errors_explained(""):
            self._prepare()
            folder = Path(tempfile.mkdtemp(prefix=_WORKING, dir=self._folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _prepare(self) -> None:
        """Create the folder of the uploads, and delete its content that is older than a day. Raises OSError
        if the folder cannot be created.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        delete_expired(self._store)

    def _write_errors_explained(
        self, name: str, size_bytes: int = 0
    ) -> contextlib.AbstractContextManager[None]:
        """Return a context manager that raises ModelStoreError (`disk_full` or `store_unwritable`) in place
        of an OSError of writing to the store, unless it comes from a lack of descriptors or memory. The
        `disk_full` error says that the model or file `name` needs `size_bytes` and the reserve. If `name` is
        empty, it says that the folder for models needs disk space.
        """
        return disk.write_errors_explained(name, size_bytes + disk.MARGIN_BYTES, self._folder.parent)


class Upload:
    """One upload in progress, which `Blobs.upload` begins: call `write` for each part, then `finish`, and
    `close` in any case.

    The parts are written to `file`, which is open at the temporary `path`; `finish` renames it to `target`.
    `free` returns the free bytes of a folder's disk. `size_bytes` is the size of the whole file, or 0 if it
    is unknown.
    """

    def __init__(
        self, target: Path, path: Path, file: IO[bytes], free: disk.FreeBytes, size_bytes: int = 0
    ) -> None:
        self._target = target
        self._path = path
        self._file = file
        self._free = free
        self._size_bytes, self._written_bytes = size_bytes, 0
        self._hash = hashlib.sha256()

    def write(self, part: bytes) -> None:
        """Append `part` to the file. Raises ModelStoreError: `disk_full` if that, or the rest of a file whose
        size is known, would leave less free disk space than the reserve; `store_unwritable` if the file
        cannot be written.
        """
        remaining_bytes = max(len(part), self._size_bytes - self._written_bytes)
        disk.require_space(self._target.name[:19], remaining_bytes, self._target.parent, self._free)
        with self._write_errors_explained():
            self._file.write(part)
        self._written_bytes += len(part)
        self._hash.update(part)

    def finish(self) -> None:
        """Give the uploaded file its final name. Raises ModelStoreError: `checksum_mismatch` if its content
        does not have the digest that the client named, `disk_full` or `store_unwritable` if the end of the
        file, which is in a buffer until then, cannot be written.
        """
        found = f"sha256-{self._hash.hexdigest()}"
        if found != self._target.name:
            raise ModelStoreError(
                "checksum_mismatch",
                f"digest mismatch, expected {self._target.name.replace('-', ':')!r}, got "
                f"{found.replace('-', ':')!r}.",
                "Upload the file again.",
            )
        with self._write_errors_explained():
            self._file.close()
            self._path.rename(self._target)

    def _write_errors_explained(self) -> contextlib.AbstractContextManager[None]:
        """Return a context manager that raises ModelStoreError in place of the OSErrors of writing the file.
        If the disk is full, the error says that the whole file, as far as its size is known, and the reserve
        are needed.
        """
        need_bytes = max(self._size_bytes, self._written_bytes) + disk.MARGIN_BYTES
        return disk.write_errors_explained(self._target.name[:19], need_bytes, self._target.parent.parent)

    def close(self) -> None:
        """Close the file, and delete it unless `finish` succeeded."""
        with contextlib.suppress(OSError):  # the disk may be too full to flush the rest
            self._file.close()
        self._path.unlink(missing_ok=True)
