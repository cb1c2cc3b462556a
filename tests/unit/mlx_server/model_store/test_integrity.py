"""Weights that were changed since they were installed."""

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
    """An installed model, as far as its note goes."""
    (tmp_path / NAME).write_bytes(b"weights" * 1000)
    note(tmp_path, integrity.compute_checksums(tmp_path))
    return tmp_path


def note(folder: Path, notes: object) -> None:
    (folder / layout.MANIFEST).write_text(json.dumps({"name": "m", integrity.MANIFEST_KEY: notes}))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))


def test_file_with_the_size_and_time_of_its_note_is_not_read(folder: Path):
    assert list(integrity.check(folder)) == []


def test_flipped_bit_is_found_and_named(folder: Path):
    flip_a_bit(folder / NAME)
    with pytest.raises(UnreadableModel, match=f"{NAME}: it has changed since it was installed"):
        list(integrity.check(folder))


def test_file_that_was_only_touched_is_read_once(folder: Path):
    os.utime(folder / NAME, ns=(2, 2))
    assert len(list(integrity.check(folder))) == 1
    assert list(integrity.check(folder)) == []


def test_hash_without_a_stamp_is_compared_as_well(folder: Path):
    note(folder, {NAME: {"sha256": "0" * 64}})
    with pytest.raises(UnreadableModel, match="recorded 000000000000"):
        list(integrity.check(folder))


@pytest.mark.parametrize("notes", [None, {}, [], {NAME: 3}, {NAME: {"sha256": 3}}, {"other": {}}])
def test_model_without_a_note_passes(folder: Path, notes):
    note(folder, notes)
    assert list(integrity.check(folder)) == []


def snapshot(cache: Path, content: bytes, blob_name: str) -> Path:
    """A repository in the hub's cache, whose weights lie in `blob_name`."""
    blobs, folder = cache / "blobs", cache / "snapshots" / "main"
    blobs.mkdir()
    folder.mkdir(parents=True)
    (blobs / blob_name).write_bytes(content)
    (folder / NAME).symlink_to(blobs / blob_name)
    return folder


def test_download_from_the_hub_is_compared_with_the_name_of_its_blob(tmp_path: Path):
    folder = snapshot(tmp_path, b"whole", hashlib.sha256(b"whole").hexdigest())
    hub.verify("m", HubSource("org/m"), folder, lambda fraction, sentence, total_bytes=0: None)
    assert (folder / NAME).read_bytes() == b"whole"


def test_damaged_download_is_removed_and_told_with_its_remedy(tmp_path: Path):
    folder = snapshot(tmp_path, b"damaged", hashlib.sha256(b"whole").hexdigest())
    with pytest.raises(ModelStoreError, match="vestal models pull m") as fault:
        hub.verify("m", HubSource("org/m"), folder, lambda fraction, sentence, total_bytes=0: None)
    assert fault.value.code == "checksum_mismatch"
    assert not (folder / NAME).exists()


def test_small_file_whose_blob_has_another_kind_of_name_passes(tmp_path: Path):
    folder = snapshot(tmp_path, b"small", "a" * 40)
    hub.verify("m", HubSource("org/m"), folder, lambda fraction, sentence, total_bytes=0: None)
