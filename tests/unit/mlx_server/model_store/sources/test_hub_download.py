"""Downloads into the hub's cache, without a hub, on file systems with odd locks and before a power cut."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import file_download

from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.sources import hub_download
from mlx_server.model_store.sources.hub_download import Blobs, download
from mlx_server.model_store.sources.hub_repository import HubFile, Repository
from tests.file_systems import lock_as_on_nfs, lock_nothing
from vestal.platform.file_lock import wait_for_lock

CONTENT = b"weights" * 1000
FILE = HubFile("model.safetensors", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
REPOSITORY = Repository("org/model", "main", (FILE,))


@pytest.fixture
def blobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Blobs:
    """The files of a cache into which every download succeeds. Partial files are in it already: one of this
    file, and one of another file, whose process died.
    """

    def http_get(_url: str, target: Any, *, resume_size: int, **_: Any) -> None:
        target.write(CONTENT[resume_size:])

    monkeypatch.setattr(file_download, "http_get", http_get)
    blobs = Blobs(tmp_path, REPOSITORY)
    blobs.folder.mkdir(parents=True)
    blobs.partial_path(FILE).write_bytes(CONTENT[:100])
    (blobs.folder / "other.vestal-incomplete").touch()
    return blobs


def test_download_into_a_cache_on_nfs_is_whole_and_deletes_abandoned_partial_files(blobs, monkeypatch):
    """Abandoned partial files stayed, because they were opened for reading, and NFS does not lock those."""
    lock_as_on_nfs(monkeypatch)
    download("model", REPOSITORY, blobs)
    assert [path.name for path in blobs.folder.iterdir()] == [FILE.sha256]
    assert blobs.path(FILE).read_bytes() == CONTENT


def test_download_into_a_cache_without_locks_is_whole_and_keeps_other_partial_files(blobs, monkeypatch):
    lock_nothing(monkeypatch)
    download("model", REPOSITORY, blobs)
    assert blobs.path(FILE).read_bytes() == CONTENT
    assert (blobs.folder / "other.vestal-incomplete").exists()


def test_downloaded_file_is_on_the_disk_before_it_gets_the_name_of_a_complete_file(blobs, monkeypatch):
    """After a power cut, a part of a file under that name would count as the complete file for ever."""
    synced: list[tuple[int, bool]] = []

    def fsync(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_size, blobs.path(FILE).exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    download("model", REPOSITORY, blobs)
    assert synced == [(len(CONTENT), False)]


PAGE = b"<html>Access to this category is blocked</html>"


class Server:
    """A hub's storage behind `http_get`. With `page`, it sends PAGE in place of each file, with status 200;
    without `ranges`, it sends files from their beginning, whatever part was asked for.
    """

    page = False
    ranges = True

    @contextlib.contextmanager
    def stream(self, *, headers: dict[str, str], **_: Any) -> Iterator[SimpleNamespace]:
        start = int(headers["Range"].removeprefix("bytes=").rstrip("-")) if "Range" in headers else 0
        start = start if self.ranges and not self.page else 0
        body = PAGE if self.page else CONTENT[start:]
        yield SimpleNamespace(
            status_code=206 if start else 200,
            headers={"Content-Length": str(len(body))},
            iter_bytes=lambda chunk_size: [body[i : i + 64] for i in range(0, len(body), 64)],
        )


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(file_download, "http_stream_backoff", server.stream)
    monkeypatch.setattr(file_download, "hf_raise_for_status", lambda _response: None)
    return server


@pytest.mark.parametrize("before", [b"", CONTENT[:1000]], ids=["first download", "continued download"])
def test_web_page_sent_instead_of_a_file_does_not_change_the_partial_file_which_a_later_download_completes(
    tmp_path, server, before
):
    """A proxy's page once replaced the partial file, and the next download was appended to the page."""
    blobs = Blobs(tmp_path, REPOSITORY)
    blobs.folder.mkdir(parents=True)
    blobs.partial_path(FILE).write_bytes(before)
    server.page = True
    with pytest.raises(ModelStoreError, match=r"In place of model\.safetensors .* something else") as caught:
        download("m", REPOSITORY, blobs)
    assert caught.value.code == "fetch_failed"
    assert blobs.partial_path(FILE).read_bytes() == before
    server.page = False
    download("m", REPOSITORY, blobs)
    assert blobs.path(FILE).read_bytes() == CONTENT


def test_partial_file_is_completed_from_a_server_that_ignores_ranges(tmp_path, server):
    blobs = Blobs(tmp_path, REPOSITORY)
    blobs.folder.mkdir(parents=True)
    blobs.partial_path(FILE).write_bytes(CONTENT[:1000])
    server.ranges = False
    download("m", REPOSITORY, blobs)
    assert blobs.path(FILE).read_bytes() == CONTENT


def test_partial_file_is_deleted_if_it_differs_from_the_whole_file_that_a_server_without_ranges_sends(
    tmp_path, server
):
    """Each further download once failed at the first byte that differed, so none completed the file."""
    blobs = Blobs(tmp_path, REPOSITORY)
    blobs.folder.mkdir(parents=True)
    blobs.partial_path(FILE).write_bytes(b"<html>")
    server.ranges = False
    with pytest.raises(ModelStoreError, match="has been removed; run") as caught:
        download("m", REPOSITORY, blobs)
    assert caught.value.code == "checksum_mismatch"
    download("m", REPOSITORY, blobs)
    assert blobs.path(FILE).read_bytes() == CONTENT


def test_two_downloads_of_a_file_at_once_fetch_it_only_once(tmp_path, server, monkeypatch):
    """Downloads do not wait for each other, so only the lock on the partial file keeps them apart."""
    blobs, first_begins, second_waits = Blobs(tmp_path, REPOSITORY), threading.Event(), threading.Event()
    requests: list[str] = []

    @contextlib.contextmanager
    def stream(*, url: str, **more: Any) -> Iterator[SimpleNamespace]:
        requests.append(url)
        first_begins.set()
        assert second_waits.wait(30)
        with server.stream(**more) as answer:
            yield answer

    def lock(descriptor: int) -> bool:
        if first_begins.is_set():
            second_waits.set()
        return wait_for_lock(descriptor)

    monkeypatch.setattr(file_download, "http_stream_backoff", stream)
    monkeypatch.setattr(hub_download, "wait_for_lock", lock)
    threads = [threading.Thread(target=download, args=("m", REPOSITORY, blobs)) for _ in range(2)]
    threads[0].start()
    assert first_begins.wait(30)
    threads[1].start()
    for thread in threads:
        thread.join(60)
    assert blobs.path(FILE).read_bytes() == CONTENT
    assert [path.name for path in blobs.folder.iterdir()] == [FILE.sha256]
    assert len(requests) == 1
