"""Faults of a model's files that are found before any of their data is read."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from mlx_server.model_store.files.weight_files import INDEX, UnreadableModel, read_headers, verify

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def safetensors(path: Path, tensors: dict[str, Any]) -> None:
    header = json.dumps(tensors).encode()
    size = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))


def tensor(start: int = 0, rows: int = 4) -> dict[str, Any]:
    return {"dtype": "F16", "shape": [rows, 2], "data_offsets": [start, start + rows * 4]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An undamaged model in two weight files, with an index."""
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    safetensors(tmp_path / FIRST, {"a": tensor(), "b": tensor(16)})
    safetensors(tmp_path / SECOND, {"c": tensor()})
    places = {"a": FIRST, "b": FIRST, "c": SECOND}
    (tmp_path / INDEX).write_text(json.dumps({"metadata": {"total_size": 48}, "weight_map": places}))
    return tmp_path


def test_verify_of_undamaged_weight_files_passes_and_their_headers_can_be_read(folder: Path):
    verify(folder)
    assert set(read_headers(folder)) == {"a", "b", "c"}


def cut(folder: Path) -> None:
    path = folder / SECOND
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(folder: Path) -> None:
    with (folder / SECOND).open("ab") as file:
        file.write(b"x")


def garble(folder: Path) -> None:
    (folder / SECOND).write_bytes(b"\xff" * 100)


def garble_json(folder: Path) -> None:
    (folder / SECOND).write_bytes(struct.pack("<Q", 20) + b"\x80" * 40)


def nest(folder: Path) -> None:
    (folder / SECOND).write_bytes(struct.pack("<Q", 100_000) + b"[" * 100_000)


def list_header(folder: Path) -> None:
    (folder / SECOND).write_bytes(struct.pack("<Q", 2) + b"[]")


def empty(folder: Path) -> None:
    (folder / SECOND).write_bytes(b"")


def misfit(folder: Path) -> None:
    safetensors(folder / SECOND, {"c": {"dtype": "F16", "shape": [9, 2], "data_offsets": [0, 16]}})


def nameless(folder: Path) -> None:
    safetensors(folder / SECOND, {"c": {"data_offsets": [0, 16]}})


def lose(folder: Path) -> None:
    (folder / SECOND).unlink()


def swap(folder: Path) -> None:
    safetensors(folder / SECOND, {"d": tensor()})


def shrink(folder: Path) -> None:
    safetensors(folder / SECOND, {"c": tensor(rows=2)})


def unmap(folder: Path) -> None:
    (folder / INDEX).write_text("{}")


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text("{'model_type'")


def lose_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (cut, "cut off: 15 of 16 bytes"),
        (lengthen, "1 bytes too many"),
        (garble, "not a safetensors file"),
        (garble_json, "its header is not text"),
        (nest, SECOND),
        (list_header, "not a JSON object"),
        (empty, "cut off: 0 bytes"),
        (misfit, "c has 16 bytes for F16 [9, 2]"),
        (nameless, "no 'dtype'"),
        (lose, "1 of 2 files are missing: " + SECOND),
        (swap, "says that it holds tensor c, and it does not"),
        (shrink, "hold 40 bytes, and its total_size says 48"),
        (unmap, "no weight_map"),
        (break_config, "config.json: not JSON"),
        (lose_config, "config.json: No such file"),
    ],
)
def test_verify_of_damaged_weight_files_raises_and_names_file_and_fault(folder: Path, damage, fault: str):
    damage(folder)
    with pytest.raises(UnreadableModel) as caught:
        verify(folder)
    assert fault in str(caught.value)
    assert str(folder) in str(caught.value)
