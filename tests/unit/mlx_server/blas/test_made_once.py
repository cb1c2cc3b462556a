"""Libraries that are made once, and again if a power cut has damaged them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlx_server.blas.made_once import made_once

LIBRARY = b"\x7fELF library"


def write(path: Path) -> None:
    path.write_bytes(LIBRARY)


@pytest.mark.parametrize("left", [b"", bytes(4096)])
def test_library_that_a_power_cut_left_without_its_content_is_made_again(tmp_path: Path, left: bytes):
    """The name outlived the cut and the content did not; every later engine then used the slow BLAS."""
    (tmp_path / "lib.so").write_bytes(left)
    assert made_once("lib.so", [tmp_path], write) == tmp_path / "lib.so"
    assert (tmp_path / "lib.so").read_bytes() == LIBRARY


def test_library_that_was_made_before_is_not_made_again(tmp_path: Path):
    write(tmp_path / "lib.so")

    def fail(path: Path) -> None:
        raise AssertionError(f"{path} was made again")

    assert made_once("lib.so", [tmp_path], fail) == tmp_path / "lib.so"


def test_library_is_synced_to_the_disk_before_it_gets_its_final_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    synced: list[tuple[int, bool]] = []

    def fsync(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_size, (tmp_path / "lib.so").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    made_once("lib.so", [tmp_path], write)
    assert synced == [(len(LIBRARY), False)]
