"""The lock on a file, with a real process that holds it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.file_systems import lock_as_on_nfs, lock_nothing
from vestal.best_effort.failures import FAILURES
from vestal.platform.file_lock import LockHeld, hold_lock_blocking, try_lock, wait_for_folder_lock


def test_file_lock_is_held_by_one_process_and_released_when_that_process_is_killed(
    tmp_path: Path, repo: Path
):
    path = tmp_path / "lock"
    program = (
        "import sys, time; from pathlib import Path; from vestal.platform.file_lock import try_lock\n"
        f"held = try_lock(Path({str(path)!r})); print(held is not None, flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program], cwd=repo, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout
    assert holder.stdin
    assert holder.stdout.readline().strip() == "True"
    assert try_lock(path) is None
    with pytest.raises(LockHeld), hold_lock_blocking(path, 0.0):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    holder.stdin.close()
    with hold_lock_blocking(path, 1.0):
        assert try_lock(path) is None


def test_file_lock_on_a_folder_is_exclusive_until_it_is_released(tmp_path: Path):
    held = try_lock(tmp_path)
    assert held is not None
    assert try_lock(tmp_path) is None
    os.close(held)
    again = try_lock(tmp_path)
    assert again is not None
    os.close(again)


def test_file_lock_that_cannot_be_created_is_reported_and_does_not_stop_the_caller(tmp_path: Path):
    """A folder below a file cannot be created, even by root. A full disk has the same effect."""
    (tmp_path / "file").write_text("")
    entered = False
    with hold_lock_blocking(tmp_path / "file" / "lock", 1.0):
        entered = True
    assert entered
    assert FAILURES.as_json()["lock"]["error"] == "Not a directory"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_file_lock_that_cannot_be_opened_for_lack_of_descriptors_or_memory_is_not_a_failed_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    """A moment without descriptors counted as a disk that cannot be written until the next recovery pass."""

    def refuse(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    before, entered = FAILURES.count("lock"), False
    with monkeypatch.context() as exhausted:
        exhausted.setattr(os, "open", refuse)
        with hold_lock_blocking(tmp_path / "lock", 1.0):
            entered = True
    assert entered
    assert FAILURES.count("lock") == before


def test_lock_on_a_folder_on_nfs_locks_the_file_given_as_its_substitute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lock_as_on_nfs(monkeypatch)
    with wait_for_folder_lock(tmp_path, instead=tmp_path / "file") as is_locked:
        assert is_locked
        assert try_lock(tmp_path / "file") is None
        assert try_lock(tmp_path, instead=tmp_path / "file") is None
    held = try_lock(tmp_path, instead=tmp_path / "file")
    assert held is not None
    os.close(held)


def test_folder_lock_on_a_file_system_without_locks_lets_the_caller_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lock_nothing(monkeypatch)
    with wait_for_folder_lock(tmp_path, instead=tmp_path / "file") as is_locked:
        assert not is_locked


def test_lock_file_missing_on_a_read_only_disk_raises_an_error_that_says_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The error was "No such file or directory"."""
    real = os.open

    def refuse_new_files(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse_new_files)
    with pytest.raises(OSError, match="Read-only"):
        try_lock(tmp_path / "lock")
