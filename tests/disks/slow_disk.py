"""A slow disk for a real process: a library for LD_PRELOAD with which every fsync takes a second."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = """
#include <unistd.h>
extern "C" int fsync(int) { sleep(1); return 0; }
"""


def slow_disk(folder: Path) -> Path:
    """Compile the library in `folder` and return its path. Skip the test if it cannot be compiled."""
    compiler = shutil.which("g++")
    if compiler is None or sys.platform != "linux":
        pytest.skip("a slow disk is made with g++ and LD_PRELOAD")
    source, library = folder / "slow.cpp", folder / "slow.so"
    source.write_text(SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return library
