"""Fetch npm packages for the tests, once for each checkout: those of a lock file, checked by its checksums.

npm keeps what it has fetched (in ~/.npm by default), so that another checkout takes it from there.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

FETCHED_WITHIN_S = 240


def fetched(lock: Path, folder: Path, *programs: str) -> Path:
    """Return `folder`, whose `node_modules` has the packages of the lock file, or skip the test.

    It is skipped if npm, the registry or one of the `programs` is missing. No package's own install script
    is run.
    """
    for program in ("npm", *programs):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed, so the packages of {lock.parent.name} cannot be tested")
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "fetched"
    with (folder / "lock").open("w") as mutex:  # several workers may want them at once
        fcntl.flock(mutex, fcntl.LOCK_EX)
        if not done.exists() or done.read_bytes() != lock.read_bytes():
            _fetch(lock, folder)
            shutil.copy(lock, done)
    return folder


def _fetch(lock: Path, folder: Path) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(lock.with_name(name), folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=FETCHED_WITHIN_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not fetch the packages of {lock.parent.name} within {FETCHED_WITHIN_S} s")
    if done.returncode:
        pytest.skip(f"npm could not fetch the packages of {lock.parent.name}: {done.stderr.strip()[-300:]}")
