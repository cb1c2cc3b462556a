"""The check for free disk space, before anything is written."""

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlx_server.model_store import disk
from mlx_server.model_store.errors import ModelStoreError


def test_require_space_error_gives_the_needed_and_the_free_bytes_and_the_folder_and_a_remedy(tmp_path):
    with pytest.raises(ModelStoreError) as caught:
        disk.require_space("smollm2:135m", 750_000_000, tmp_path, free=lambda _: 41_000_000)
    error = caught.value
    assert error.code == "disk_full"
    assert error.message == f"Model smollm2:135m needs 779 MiB of disk, and 39.1 MiB are free at {tmp_path}."
    assert "mlx.store" in error.remedy


def test_require_space_with_just_enough_free_space_raises_nothing(tmp_path):
    disk.require_space("m", 1, tmp_path, free=lambda _: 1 + disk.MARGIN_BYTES)


def test_free_bytes_of_a_missing_folder_is_measured_at_an_existing_parent_folder(tmp_path, monkeypatch):
    measured: list[Path] = []

    def measure(folder: Path) -> SimpleNamespace:
        measured.append(folder)
        return SimpleNamespace(free=7)

    monkeypatch.setattr(disk.shutil, "disk_usage", measure)
    assert disk.free_bytes(tmp_path / "a" / "b") == 7
    assert measured == [tmp_path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_write_that_fails_on_a_full_disk_names_the_need_and_no_free_bytes(tmp_path, number):
    """It said that 64 MiB were needed and 79.6 free, which were so only after the file was deleted."""
    with pytest.raises(ModelStoreError) as caught, disk.full_disk_explained("m", 2 * 1024**3, tmp_path):
        raise OSError(number, "full")
    assert caught.value.message == f"Model m needs 2.0 GiB of disk, and {tmp_path} had no space left."


def test_is_disk_full_is_true_only_for_errors_of_missing_disk_space():
    assert disk.is_disk_full(OSError(errno.ENOSPC, "full"))
    assert not disk.is_disk_full(OSError(errno.EACCES, "denied"))
