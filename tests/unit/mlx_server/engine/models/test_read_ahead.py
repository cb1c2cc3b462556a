"""Which parts of which files the system is asked to read ahead."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mlx_server.engine.models.weights import read_ahead
from mlx_server.engine.models.weights.read_ahead import RANGE_BYTES


def make(folder: Path, *sizes: int) -> list[Path]:
    """Make sparse files of the given sizes."""
    folder.mkdir(exist_ok=True)
    files = [folder / f"model-{number}.safetensors" for number in range(len(sizes))]
    for file, size in zip(files, sizes, strict=True):
        with file.open("wb") as stream:
            stream.truncate(size)
    return files


def test_read_ahead_requests_all_file_ranges_in_order_up_to_the_limit_of_bytes(tmp_path: Path):
    asked: list[tuple[int, int]] = []
    files = make(tmp_path, RANGE_BYTES + 5, 100, 100)
    limit = RANGE_BYTES + 55
    count = read_ahead.read_ahead(files, limit, lambda fd, offset, size: asked.append((offset, size)))
    assert asked == [(0, RANGE_BYTES), (RANGE_BYTES, 5), (0, 50)]
    assert count == limit


def test_read_ahead_skips_a_missing_file_and_a_file_that_the_system_refuses_to_read_ahead(tmp_path: Path):
    (file,) = make(tmp_path, 100)

    def refuse(fd: int, offset: int, size: int) -> None:
        raise OSError("not supported")

    assert read_ahead.read_ahead([tmp_path / "gone", file], 1000, refuse) == 0
    assert read_ahead.read_ahead([tmp_path / "gone", file], 1000) == 100


def test_files_to_read_ahead_are_in_the_order_of_preloaded_models_and_omit_unknown_models(tmp_path: Path):
    models: list[Any] = []
    for name in ("one:latest", "two:latest"):
        make(tmp_path / name, 1)
        models.append(SimpleNamespace(name=name, path=tmp_path / name))
    files = read_ahead.files_of(["two", "unknown", "one"], models)
    assert [file.parent.name for file in files] == ["two:latest", "one:latest"]
