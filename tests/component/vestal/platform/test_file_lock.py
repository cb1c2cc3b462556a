"""The lock on a file, with a real process that holds it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vestal.best_effort.failures import FAILURES
from vestal.platform.file_lock import LockHeld, hold_lock_blocking, try_lock


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
