"""Detection of weights that were damaged during the download."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mlx_server.model_store import ModelStoreError
from mlx_server.model_store.sources import hub
from mlx_server.model_store.sources.source import HubSource

NAME = "model.safetensors"


def snapshot(cache: Path, content: bytes, blob_name: str) -> Path:
    """Create a repository as the hub's cache holds it, its weights in `blob_name`; return its snapshot."""
    blobs, folder = cache / "blobs", cache / "snapshots" / "main"
    blobs.mkdir()
    folder.mkdir(parents=True)
    (blobs / blob_name).write_bytes(content)
    (folder / NAME).symlink_to(blobs / blob_name)
    return folder


def test_downloaded_weights_whose_hash_equals_their_blob_name_pass_verification(tmp_path: Path):
    folder = snapshot(tmp_path, b"whole", hashlib.sha256(b"whole").hexdigest())
    hub.verify("m", HubSource("org/m"), folder, lambda fraction, sentence, total_bytes=0: None)
    assert (folder / NAME).read_bytes() == b"whole"


def test_downloaded_weights_that_are_damaged_are_deleted_and_reported_with_the_remedy(tmp_path: Path):
    folder = snapshot(tmp_path, b"damaged", hashlib.sha256(b"whole").hexdigest())
    with pytest.raises(ModelStoreError, match="vestal models pull m") as fault:
        hub.verify("m", HubSource("org/m"), folder, lambda fraction, sentence, total_bytes=0: None)
    assert fault.value.code == "checksum_mismatch"
    assert not (folder / NAME).exists()


def test_downloaded_file_whose_blob_is_not_named_by_a_sha256_passes_verification(tmp_path: Path):
    folder = snapshot(tmp_path, b"small", "a" * 40)
    hub.verify("m", HubSource("org/m"), folder, lambda fraction, sentence, total_bytes=0: None)
