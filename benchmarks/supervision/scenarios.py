"""Disturb the child of a supervisor, and measure from outside how the supervisor reacts.

The children are shell scripts that write their PIDs to a file. So all three supervisors are observed alike,
and the time measured is that of the supervisor, not of a slow child.
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
"""Longer than a child must have run, for each of the supervisors, to be restarted at once."""

SLEEPS = "exec sleep 3600"
EXITS = "exit 1"
IGNORES_TERM = "trap '' TERM\nwhile :; do sleep 0.2; done"
HAS_A_CHILD = 'sleep 3600 &\necho $! >> "$FOLDER/grandchildren"\nwait'


@dataclass
class Case:
    """A running supervisor with one child."""

    folder: Path
    process: subprocess.Popen[bytes]

    def started(self) -> list[int]:
        """Return the PIDs of all children started so far."""
        return _numbers(self.folder / "starts")

    def next_pid(self, seen: int) -> int:
        """Wait until more than `seen` children have started, and return the next PID. Raise TimeoutError."""
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            if len(started := self.started()) > seen:
                return started[seen]
            time.sleep(0.0005)
        raise TimeoutError(f"no start within {DEADLINE_S:g} s: {(self.folder / 'output.log').read_text()}")

    def stop(self) -> float:
        """Send SIGTERM to the supervisor, and return the seconds until it has exited."""
        began = time.monotonic()
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(DEADLINE_S)
        return time.monotonic() - began

    def survivors(self) -> list[int]:
        """Return the PIDs of all children and grandchildren that still live."""
        return [pid for pid in (*self.started(), *_numbers(self.folder / "grandchildren")) if _lives(pid)]


@contextlib.contextmanager
def case(contestant: Contestant, script: str) -> Iterator[Case]:
    """Run a supervisor with `script` as its child; kill all their processes at the end."""
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
            for pid in made.survivors():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def death_to_new_process(contestant: Contestant, kills: int) -> dict[str, str]:
    """Kill the child `kills` times with no backoff due; measure the restart and the supervisor's memory."""
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
    """Run a child that exits at once; count its starts and the supervisor's CPU time."""
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
    """Stop the supervisor while its child ignores SIGTERM."""
    with case(contestant, IGNORES_TERM) as it:
        it.next_pid(0)
        time.sleep(BETWEEN_S)
        took = it.stop()
        remaining = len(it.survivors())
    return {"ignores TERM: s to stop": f"{took:.1f}", "  processes left": str(remaining)}


def grandchildren(contestant: Contestant) -> dict[str, str]:
    """Kill a child that has a child of its own, wait for its restart, then stop the supervisor."""
    with case(contestant, HAS_A_CHILD) as it:
        pid = it.next_pid(0)
        time.sleep(BETWEEN_S)
        os.kill(pid, signal.SIGKILL)
        it.next_pid(1)
        time.sleep(BETWEEN_S)
        strays = sum(map(_lives, _numbers(it.folder / "grandchildren")[:1]))
        it.stop()
        remaining = len(it.survivors())
    return {
        "grandchildren: strays after a death": str(strays),
        "  processes left after the stop": str(remaining),
    }


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
