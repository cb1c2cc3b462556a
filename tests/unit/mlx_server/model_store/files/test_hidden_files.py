"""Hidden files in a model's folder are no part of the model.

On exFAT disks and network shares, macOS keeps the attributes of each file in a hidden file with the prefix
`._`. An archive that was packed on macOS may have such files too.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import pytest

from mlx_server.model_store.files.file_states import states_of, weights_id
from mlx_server.model_store.files.fingerprint import fingerprint, sample_file
from mlx_server.model_store.files.model_folder import find_model
from mlx_server.model_store.files.sentence_files import module_files

APPLE_DOUBLE = bytes.fromhex("0005160700020000") + b"Mac OS X        ".ljust(4088, b"\0")


def write_weights(path: Path) -> None:
    header = json.dumps({"a.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A language model with a template in a folder of its own, and a module of sentence-transformers."""
    for name in ("1_Dense", "additional_chat_templates"):
        (tmp_path / name).mkdir()
    write_weights(tmp_path / "model.safetensors")
    write_weights(tmp_path / "1_Dense" / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 64}')
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("{{ messages }}")
    return tmp_path


def add_hidden_files(folder: Path) -> None:
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(APPLE_DOUBLE)
    (folder / ".DS_Store").write_bytes(APPLE_DOUBLE)


def test_fingerprint_of_a_model_is_the_same_with_hidden_files_of_macos(folder: Path):
    """Such a model could not be loaded: the hidden file beside its weights was read as weights."""
    before = fingerprint(folder)
    add_hidden_files(folder)
    assert fingerprint(folder) == before


def test_states_of_a_models_files_do_not_include_hidden_files(folder: Path):
    before = states_of(folder), weights_id(folder), module_files(folder)
    add_hidden_files(folder)
    assert (states_of(folder), weights_id(folder), module_files(folder)) == before


def test_model_found_in_an_archive_packed_on_macos_is_not_a_hidden_file(tmp_path: Path):
    for name in ("._model.gguf", "model.gguf"):
        (tmp_path / name).write_bytes(APPLE_DOUBLE)
    assert find_model(tmp_path) == tmp_path / "model.gguf"


@pytest.mark.parametrize("content", [b"", b"\x01", APPLE_DOUBLE, struct.pack("<Q", 40) + b"{}"])
def test_sample_of_a_file_that_is_not_safetensors_raises_an_error_that_names_it(
    tmp_path: Path, content: bytes
):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="model.safetensors is not a safetensors file, or is cut off"):
        sample_file(path, hashlib.sha256())
