"""The lock on a file, with a real process that holds it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vestal.platform.file_lock import LockHeld, hold_lock_blocking, try_lock


def test_lock_is_held_by_one_process_and_released_by_its_death(tmp_path: Path, repo: Path):
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
