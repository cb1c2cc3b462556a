"""Whether a disk can be written. Full and read-only ones are mounted by the doctor's tests."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from vestal.best_effort.disks import find_obstacle


def report_files(monkeypatch: pytest.MonkeyPatch, in_all: int, free: int) -> None:
    """Let each file system report this many files in all, and free ones; and a free space of 4 GiB."""
    figures = (4096, 4096, 2**21, 2**20, 2**20, in_all, free, free, 0, 255)
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(figures))


def test_find_obstacle_to_writing_is_an_error_for_a_missing_folder_and_none_for_a_writable_one(
    tmp_path: Path,
):
    assert find_obstacle(tmp_path) is None
    gone = find_obstacle(tmp_path / "gone")
    assert gone is not None
    assert gone.errno == errno.ENOENT


@pytest.mark.parametrize("in_all", [0, 1, 512])
def test_find_obstacle_is_none_on_a_file_system_that_has_no_fixed_number_of_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_all: int
):
    """macOS reports one file, and none free, for every exFAT disk, which counted as full for ever."""
    report_files(monkeypatch, in_all, free=0)
    assert find_obstacle(tmp_path) is None


def test_find_obstacle_reports_a_full_disk_if_no_inode_is_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    report_files(monkeypatch, 65_536, free=0)
    found = find_obstacle(tmp_path)
    assert found is not None
    assert found.errno == errno.ENOSPC
