"""What is done to the child of each supervisor, and what an outsider sees of it.

The children are shell scripts that note their PIDs in a file, so that all three are seen in the same way and
what is timed is the supervisor, not the child's own start.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.supervision.peers import Contestant

DEADLINE_S = 15.0
BETWEEN_S = 1.5
"""Longer than each of them wants a child to have run before a restart is due at once."""

SLEEPS = "exec sleep 3600"
EXITS = "exit 1"
IGNORES_TERM = "trap '' TERM\nwhile :; do sleep 0.2; done"
HAS_A_CHILD = 'sleep 3600 &\necho $! >> "$FOLDER/grandchildren"\nwait'


@dataclass
class Case:
    """A supervisor at work on one child."""

    folder: Path
    process: subprocess.Popen[bytes]

    def started(self) -> list[int]:
        """The PIDs of its children so far."""
        return _numbers(self.folder / "starts")

    def next_pid(self, seen: int) -> int:
        """Waits for the start after the first `seen`. Raises TimeoutError."""
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            if len(started := self.started()) > seen:
                return started[seen]
            time.sleep(0.0005)
        raise TimeoutError(f"no start within {DEADLINE_S:g} s: {(self.folder / 'output.log').read_text()}")

    def stop(self) -> float:
        """SIGTERM to the supervisor; the seconds until it has ended."""
        began = time.monotonic()
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(DEADLINE_S)
        return time.monotonic() - began

    def left(self) -> list[int]:
        """What still lives of all that was started."""
        return [pid for pid in (*self.started(), *_numbers(self.folder / "grandchildren")) if _lives(pid)]


@contextlib.contextmanager
def case(contestant: Contestant, script: str) -> Iterator[Case]:
    """Nothing of it stays."""
    with TemporaryDirectory(prefix="vestal-bench-") as name:
        folder = Path(name)
        child = folder / "child"
        child.write_text(f'#!/bin/sh\nFOLDER={folder}\necho $$ >> "$FOLDER/starts"\n{script}\n')
        child.chmod(0o700)
        made = Case(folder, contestant.start(folder, child))
        try:
            yield made
        finally:
            made.process.kill()
            made.process.wait()
            for pid in made.left():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def death_to_new_process(contestant: Contestant, kills: int) -> dict[str, str]:
    """kill -9, no back-off due; and what the supervisor itself takes."""
    with case(contestant, SLEEPS) as it:
        took = []
        for number in range(kills):
            pid = it.next_pid(number)
            time.sleep(BETWEEN_S)
            began = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            it.next_pid(number + 1)
            took.append((time.perf_counter() - began) * 1000)
        resident = psutil.Process(it.process.pid).memory_info().rss / 2**20
    return {
        "kill -9 to the new process, p50 ms": f"{statistics.median(took):.1f}",
        "  the longest of them, ms": f"{max(took):.1f}",
        "supervisor's memory, MB": f"{resident:.0f}",
    }


def crash_loop(contestant: Contestant, seconds: float) -> dict[str, str]:
    """A child that exits at once: how often it is started, and what that costs."""
    with case(contestant, EXITS) as it:
        it.next_pid(0)
        time.sleep(seconds)
        times = psutil.Process(it.process.pid).cpu_times()
        starts = len(it.started())
        spent = times.user + times.system
    return {
        f"exits at once: starts in {seconds:g} s": str(starts),
        "  supervisor's processor time, s": f"{spent:.2f}",
    }


def ignores_term(contestant: Contestant) -> dict[str, str]:
    """The supervisor is told to end while its child ignores SIGTERM."""
    with case(contestant, IGNORES_TERM) as it:
        it.next_pid(0)
        time.sleep(BETWEEN_S)
        took = it.stop()
        left = len(it.left())
    return {"ignores TERM: s to stop": f"{took:.1f}", "  processes left": str(left)}


def grandchildren(contestant: Contestant) -> dict[str, str]:
    """A child with a child of its own is killed, and started again; then all are stopped."""
    with case(contestant, HAS_A_CHILD) as it:
        pid = it.next_pid(0)
        time.sleep(BETWEEN_S)
        os.kill(pid, signal.SIGKILL)
        it.next_pid(1)
        time.sleep(BETWEEN_S)
        strays = sum(map(_lives, _numbers(it.folder / "grandchildren")[:1]))
        it.stop()
        left = len(it.left())
    return {"grandchildren: strays after a death": str(strays), "  processes left after the stop": str(left)}


def _numbers(file: Path) -> list[int]:
    try:
        return [int(line) for line in file.read_text().splitlines()]
    except (FileNotFoundError, ValueError):  # ValueError: a line half written
        return []


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
