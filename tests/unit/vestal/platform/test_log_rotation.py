from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from vestal.platform import log_rotation
from vestal.supervision.clock import FakeClock


def test_log_file_that_is_too_large_is_copied_and_truncated_while_its_writer_continues(tmp_path: Path):
    log = tmp_path / "one.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 100)
        assert log_rotation.rotate(tmp_path, max_bytes=50) == [log]
        writer.write(b"more")
    assert log.read_bytes() == b"more"
    assert (tmp_path / "one.log.1").read_bytes() == b"x" * 100
    assert log_rotation.rotate(tmp_path, max_bytes=50) == []


def test_copy_of_a_log_can_be_read_by_its_owner_only(tmp_path: Path):
    copy = tmp_path / "one.log.1"
    copy.write_text("an older copy")
    copy.chmod(0o644)
    (tmp_path / "one.log").write_bytes(b"x" * 100)
    log_rotation.rotate(tmp_path, max_bytes=50)
    assert copy.stat().st_mode & 0o777 == 0o600


async def test_logs_are_rotated_at_each_interval_until_the_task_is_cancelled(tmp_path: Path):
    log, clock = tmp_path / "one.log", FakeClock()

    async def write_and_wait(seconds: float) -> None:
        assert log.stat().st_size == 0
        assert seconds == log_rotation.INTERVAL_S
        log.write_bytes(b"x" * (log_rotation.MAX_BYTES + 1))
        if clock.now() > 3 * seconds:
            raise asyncio.CancelledError
        clock.advance(seconds)

    log.write_bytes(b"x" * (log_rotation.MAX_BYTES + 1))
    with pytest.raises(asyncio.CancelledError):
        await log_rotation.rotate_regularly(tmp_path, write_and_wait)


async def test_logs_are_rotated_again_after_a_rotation_that_found_no_free_descriptor(
    tmp_path: Path, monkeypatch
):
    """The task ended, nothing said so, and the logs grew without end."""
    rounds = 0

    def exhausted(folder: Path) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async def count(seconds: float) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(log_rotation, "rotate", exhausted)
    with pytest.raises(asyncio.CancelledError):
        await log_rotation.rotate_regularly(tmp_path, count)
    assert rounds == 3


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
