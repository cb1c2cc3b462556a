"""Detection of weights that have changed since they were installed, or were damaged during the download."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from mlx_server.model_store import ModelStoreError, layout
from mlx_server.model_store.files import integrity
from mlx_server.model_store.files.weight_files import UnreadableModel
from mlx_server.model_store.sources import hub
from mlx_server.model_store.sources.source import HubSource

NAME = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with weights, and a manifest that records their checksums."""
    (tmp_path / NAME).write_bytes(b"weights" * 1000)
    write_manifest(tmp_path, integrity.compute_checksums(tmp_path))
    return tmp_path


def write_manifest(folder: Path, checksums: object) -> None:
    (folder / layout.MANIFEST).write_text(json.dumps({"name": "m", integrity.MANIFEST_KEY: checksums}))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))


def test_check_of_a_file_with_the_recorded_size_and_time_reads_nothing(folder: Path):
    assert list(integrity.check(folder)) == []


def test_check_when_a_bit_was_flipped_raises_and_names_the_file(folder: Path):
    flip_a_bit(folder / NAME)
    with pytest.raises(UnreadableModel, match=f"{NAME}: it has changed since it was installed"):
        list(integrity.check(folder))


def test_check_of_a_touched_file_reads_it_once(folder: Path):
    os.utime(folder / NAME, ns=(2, 2))
    assert len(list(integrity.check(folder))) == 1
    assert list(integrity.check(folder)) == []


def test_check_when_only_a_hash_is_recorded_compares_it(folder: Path):
    write_manifest(folder, {NAME: {"sha256": "0" * 64}})
    with pytest.raises(UnreadableModel, match="recorded 000000000000"):
        list(integrity.check(folder))


@pytest.mark.parametrize("checksums", [None, {}, [], {NAME: 3}, {NAME: {"sha256": 3}}, {"other": {}}])
def test_check_when_no_checksum_is_recorded_passes(folder: Path, checksums):
    write_manifest(folder, checksums)
    assert list(integrity.check(folder)) == []


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
