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


def test_hub_verify_when_weights_have_the_hash_that_names_their_blob_passes(tmp_path: Path):
    folder = snapshot(tmp_path, b"whole", hashlib.sha256(b"whole").hexdigest())
    hub.verify("m", HubSource("org/m"), folder, lambda fraction, sentence, total_bytes=0: None)
    assert (folder / NAME).read_bytes() == b"whole"


def test_hub_verify_when_weights_are_damaged_deletes_them_and_raises_with_remedy(tmp_path: Path):
    folder = snapshot(tmp_path, b"damaged", hashlib.sha256(b"whole").hexdigest())
    with pytest.raises(ModelStoreError, match="vestal models pull m") as fault:
        hub.verify("m", HubSource("org/m"), folder, lambda fraction, sentence, total_bytes=0: None)
    assert fault.value.code == "checksum_mismatch"
    assert not (folder / NAME).exists()


def test_hub_verify_when_blob_is_not_named_by_sha256_passes(tmp_path: Path):
    folder = snapshot(tmp_path, b"small", "a" * 40)
    hub.verify("m", HubSource("org/m"), folder, lambda fraction, sentence, total_bytes=0: None)
