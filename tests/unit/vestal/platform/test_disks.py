"""Whether a disk can be written. Full and read-only ones are mounted by the doctor's tests."""

from __future__ import annotations

import errno
from pathlib import Path

from vestal.platform.disks import find_obstacle


def test_find_obstacle_to_writing_is_an_error_for_a_missing_folder_and_none_for_a_writable_one(
    tmp_path: Path,
):
    assert find_obstacle(tmp_path) is None
    gone = find_obstacle(tmp_path / "gone")
    assert gone is not None
    assert gone.errno == errno.ENOENT
