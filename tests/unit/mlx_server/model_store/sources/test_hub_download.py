"""Downloads into the hub's cache, without a hub, on file systems with odd locks and before a power cut."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import file_download

from mlx_server.model_store.sources.hub_download import Blobs, download
from mlx_server.model_store.sources.hub_repository import HubFile, Repository
from tests.file_systems import lock_as_on_nfs, lock_nothing

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
