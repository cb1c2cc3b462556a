from __future__ import annotations

import errno
from pathlib import Path

from vestal.platform import log_rotation


def test_log_file_that_is_too_large_is_copied_and_truncated_while_its_writer_continues(tmp_path: Path):
    log = tmp_path / "one.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 100)
        assert log_rotation.rotate(tmp_path, max_bytes=50) == [log]
        writer.write(b"more")
    assert log.read_bytes() == b"more"
    assert (tmp_path / "one.log.1").read_bytes() == b"x" * 100
    assert log_rotation.rotate(tmp_path, max_bytes=50) == []


def _full_disk(source: Path, target: Path) -> None:
    target.write_bytes(b"x")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_log_file_below_twice_its_limit_is_not_truncated_if_a_full_disk_prevents_its_copy(
    tmp_path: Path, monkeypatch
):
    monkeypatch.setattr("vestal.platform.log_rotation.shutil.copyfile", _full_disk)
    (tmp_path / "one.log").write_bytes(b"x" * 100)
    assert log_rotation.rotate(tmp_path, max_bytes=60) == []
    assert [path.name for path in tmp_path.iterdir()] == ["one.log"]


def test_log_file_that_cannot_be_copied_is_truncated_at_twice_its_limit(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("vestal.platform.log_rotation.shutil.copyfile", _full_disk)
    (tmp_path / "one.log").write_bytes(b"x" * 100)
    assert log_rotation.rotate(tmp_path, max_bytes=49) == [tmp_path / "one.log"]
    assert (tmp_path / "one.log").read_bytes() == b""
