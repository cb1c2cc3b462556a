"""Download the large files of a repository into the hub's cache, so that an interrupted download can
continue.

The hub's library (since its version 2) deletes a file whose download ends early. So the large files are first
fetched here, by the library's own `http_get`, which sends `Range`. Each file is checked and then renamed to
its name in the cache, which is its sha256, so that the library finds it there.

A proxy or mirror may send a page with status 200 in place of a file. Such a page does not replace what was
downloaded before, and does not stay in the partial file, to which the next download appends.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import BinaryIO, cast

from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.files.integrity import sha256_of
from mlx_server.model_store.sources.hub_repository import HubFile, Repository
from vestal.platform.file_lock import try_lock, wait_for_lock

CONNECTIONS = 4
"""How many files are downloaded at the same time. One connection to the hub's storage gives about 50 MB/s."""
CHUNK_BYTES = 1024 * 1024
"""How many bytes are written at a time. With the library's own 10 MB, a kill would lose more."""
_LOOK_S = 0.2
_SUFFIX = ".vestal-incomplete"


class Blobs:
    """Finds a repository's large files in the hub's cache: complete, partial or missing."""

    def __init__(self, cache: Path, repository: Repository) -> None:
        self.folder = cache / ("models--" + repository.repo.replace("/", "--")) / "blobs"
        self._repository = repository

    @property
    def large(self) -> list[HubFile]:
        """Return the files of the repository that `download` fetches: those whose sha256 the hub announces,
        as it does for large files. Files over MAX_HTTP_DOWNLOAD_SIZE (50 GB) are excluded: `http_get` refuses
        them, and the hub's library fetches them in another way.
        """
        from huggingface_hub import constants

        most = constants.MAX_HTTP_DOWNLOAD_SIZE
        return [file for file in self._repository.files if file.sha256 and file.bytes <= most]

    def present_bytes(self) -> int:
        """Return how many bytes of the repository's large files, which the property `large` lists, are in the
        hub's cache, including the bytes of partial files.
        """
        return sum(min(self._size(file), file.bytes) for file in self.large)

    def missing(self) -> list[HubFile]:
        """Return the large files that are not complete, the largest first."""
        absent = [file for file in self.large if not self.path(file).exists()]
        return sorted(absent, key=lambda file: -file.bytes)

    def path(self, file: HubFile) -> Path:
        """Return the path that the complete file has in the cache."""
        return self.folder / str(file.sha256)

    def partial_path(self, file: HubFile) -> Path:
        """Return the path of the file's downloaded part, while it is not complete."""
        return self.folder / f"{file.sha256}{_SUFFIX}"

    def delete_abandoned(self) -> None:
        """Delete the partial files in the cache that belong to none of the repository's large files, unless a
        process is downloading them. On a file system without locks, that is unknown, so they all stay.
        """
        wanted = {self.partial_path(file) for file in self.large}
        for partial in set(self.folder.glob(f"*{_SUFFIX}")) - wanted:
            with contextlib.suppress(OSError):
                lock = try_lock(partial)
                if lock is not None:
                    try:
                        partial.unlink()
                    finally:
                        os.close(lock)

    def _size(self, file: HubFile) -> int:
        for path in (self.path(file), self.partial_path(file)):
            try:
                return path.stat().st_size
            except OSError:
                continue
        return 0


def download(name: str, repository: Repository, blobs: Blobs) -> None:
    """Download into the hub's cache those files in `blobs.large` that it lacks. `name` is the model's name,
    for errors.

    Raises ModelStoreError if a file is damaged, and otherwise the first error of the hub's library. An error
    is raised at once, while other files are still being downloaded. The downloads run in daemon threads, so a
    process that is terminated does not wait for them either.
    """
    waiting: queue.SimpleQueue[HubFile] = queue.SimpleQueue()
    missing = blobs.missing()
    for file in missing:
        waiting.put(file)
    blobs.folder.mkdir(parents=True, exist_ok=True)
    blobs.delete_abandoned()
    problems: list[BaseException] = []

    def work() -> None:
        while not problems:
            try:
                _download(name, repository, waiting.get_nowait(), blobs)
            except queue.Empty:
                return
            except BaseException as error:
                problems.append(error)

    threads = [
        threading.Thread(target=work, name=f"hub-download-{number}", daemon=True)
        for number in range(min(CONNECTIONS, len(missing)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive() and not problems:
            thread.join(_LOOK_S)
    if problems:
        raise problems[0]


def _download(name: str, repository: Repository, file: HubFile, blobs: Blobs) -> None:
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    constants.DOWNLOAD_CHUNK_SIZE = min(constants.DOWNLOAD_CHUNK_SIZE, CHUNK_BYTES)
    partial = blobs.partial_path(file)
    with _locked(partial) as descriptor:
        if blobs.path(file).exists():  # another process was faster
            partial.unlink(missing_ok=True)
            return
        with os.fdopen(os.dup(descriptor), "r+b", buffering=0) as target:
            present = target.seek(0, os.SEEK_END)
            if present > file.bytes:
                target.truncate(present := target.seek(0))
            continued = _Continued(target)
            try:
                http_get(
                    hf_hub_url(repository.repo, file.name, revision=repository.commit),
                    cast(BinaryIO, continued),
                    resume_size=present,
                    headers=build_hf_headers() | {"Accept-Encoding": "identity"},
                    expected_size=file.bytes,
                    displayed_filename=file.name,
                )
            except OSError as error:
                if type(error) is not OSError or error.errno is not None:  # of the network or the disk
                    raise
                target.truncate(present)  # the reply was not as long as the file
                raise _another_file(name, repository.repo, file.name, partial) from error
        if continued.differs or sha256_of(partial) != file.sha256:  # the earlier bytes may be wrong
            partial.unlink()
            raise mismatch(name, repository.repo, file.name)
        os.fsync(descriptor)  # a power cut would leave a part of it under the name of a complete file
        partial.rename(blobs.path(file))


class _Continued:
    """The partial file `file`, which is open and unbuffered, as the target to which `http_get` writes. The
    bytes that the file already has are never overwritten. If `http_get` writes different bytes in their
    place, `differs` becomes True, and nothing is written from then on.

    This protects the file from a server that ignores the header `Range` and sends the whole file again:
    `http_get` then goes back to the beginning, truncates the file (which does nothing here), and writes all
    bytes. At the end, `http_get` raises an error if the server's reply is not as long as the complete file;
    for example, the reply may be a web page. If there is no such error but `differs` is True, the bytes that
    the partial file already had are wrong.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self.differs = False

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def truncate(self, size: int | None = None) -> int:
        return self._file.tell() if size is None else size

    def write(self, content: bytes) -> int:
        """Write all of `content`. Raises OSError if the disk is full."""
        present = self._file.read(len(content))
        self.differs = self.differs or present != content[: len(present)]
        if self.differs:
            self._file.seek(len(content) - len(present), os.SEEK_CUR)
            return len(content)
        rest = memoryview(content)[len(present) :]
        while rest:  # a nearly full disk takes a part
            rest = rest[self._file.write(rest) :]
        return len(content)


@contextmanager
def _locked(partial: Path) -> Iterator[int]:
    """Open the partial file, which is created if it is missing, lock it so that no other process appends to
    it, and yield its file descriptor. If another process holds the lock, wait until it is released. On a
    file system without locks, go on without one: two processes that append to one file damage it, and its
    checksum shows that.
    """
    while True:
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            wait_for_lock(descriptor)
            if _is_at(descriptor, partial):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Return True if the open file is still at `path`. Another process may have renamed or deleted
    the file.
    """
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _another_file(name: str, repo: str, filename: str, partial: Path) -> ModelStoreError:
    """Return the error for an answer that is not the file `filename` of `repo`, the source of the model
    `name`. What was downloaded before is in the file `partial`.
    """
    return ModelStoreError(
        "fetch_failed",
        f"In place of {filename} of {repo}, the source of model {name}, something else was sent.",
        "Check the network, a proxy or HF_ENDPOINT, which may send a page of their own, and run "
        f"`vestal models pull {name}` again; what was fetched before is kept in {partial}.",
    )


def mismatch(name: str, repo: str, filename: str) -> ModelStoreError:
    """Return the error for a downloaded file that was deleted, because its content does not have the sha256
    that the hub announced.
    """
    return ModelStoreError(
        "checksum_mismatch",
        f"{filename} of {repo}, the source of model {name}, was damaged during the download.",
        f"It has been removed; run `vestal models pull {name}` again.",
    )
