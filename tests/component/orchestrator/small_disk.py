"""A small disk of one's own, which a test fills, empties, or makes read-only while a program uses it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.waiting import looks

MOUNT = 'mount -t tmpfs -o "$1" none "$2" && echo ready && exec sleep 600'
FILL = "dd if=/dev/zero bs=64k >> filler; dd if=/dev/zero bs=1k >> filler"
IS_FULL = '[ "$(stat -f -c %f .)" = 0 ] && [ ! -e orchestrator.db-wal ] && [ "$(stat -f -c %f .)" = 0 ]'
"""A program that has orchestrator.db open would free some space when it closes the file."""


class SmallDisk:
    """A tmpfs at `folder`, seen only by programs whose command begins with `prefix`."""

    def __init__(self, folder: Path, size_mb: int) -> None:
        folder.mkdir()
        self.folder = folder
        command = ["unshare", "-rm", "sh", "-c", MOUNT, "sh", f"size={size_mb}m", str(folder)]
        self._holder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self._holder.stdout
        if (said := self._holder.stdout.readline().strip()) != "ready":
            self.unmount()
            pytest.skip(f"no small disk can be mounted here: {said}")
        pid = str(self._holder.pid)
        self.prefix = ["nsenter", "-t", pid, "-U", "-m", "--preserve-credentials"]

    def run(self, script: str) -> str:
        """Run a shell script that sees the disk, in its folder; return what it prints."""
        command = [*self.prefix, "sh", "-c", f'cd "{self.folder}" && {script}']
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        return done.stdout + done.stderr

    def fill(self) -> None:
        """Leave no free byte, and none that the orchestrator would free at the end of what it does."""
        for _ in looks(30):
            if self.run(f"({FILL}) 2> /dev/null; {IS_FULL} && echo full"):
                return
        raise AssertionError("the disk does not stay full")

    def empty(self) -> None:
        """Undo `fill`."""
        self.run("rm -f filler")

    def remount(self, how: str) -> None:
        """Make the disk read-only (`ro`) or writable (`rw`) for programs that open files from now on."""
        said = self.run(f'mount -o "remount,{how}" "{self.folder}"')
        assert not said, said

    def unmount(self) -> None:
        """End the disk, with all that is on it."""
        self._holder.kill()
        self._holder.communicate()


def mount(folder: Path, size_mb: int) -> SmallDisk:
    """Mount a small disk; skip the test if that is not allowed."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        pytest.skip("no `unshare` and `nsenter` to mount a small disk with")
    return SmallDisk(folder, size_mb)
