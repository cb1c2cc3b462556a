"""Whether a disk can be written. Full and read-only ones are mounted by the doctor's tests."""

from __future__ import annotations

import errno
from pathlib import Path

from vestal.platform.disks import find_obstacle


def test_folder_that_is_gone_is_an_obstacle_and_an_ordinary_one_is_none(tmp_path: Path):
    assert find_obstacle(tmp_path) is None
    gone = find_obstacle(tmp_path / "gone")
    assert gone is not None
    assert gone.errno == errno.ENOENT
