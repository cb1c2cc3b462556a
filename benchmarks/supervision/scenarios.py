"""Disturb the child of a supervisor, and measure from outside how the supervisor reacts.

The children are shell scripts that write their PIDs to a file. So all supervisors are observed alike, and the
measured time does not include the start of a slow child.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.peers.process import RunningProcess
from benchmarks.peers.supervisors import SupervisorPeer

DEADLINE_S = 15.0
BETWEEN_S = 1.5
"""How many seconds a child runs before it is disturbed, which is enough for each of the supervisors to
restart it at once.
"""

ONE_AT_A_TIME = threading.Lock()
"""Held while milliseconds are measured, because several supervisors are observed at the same time."""

SLEEPS = "exec sleep 3600"
EXITS = "exit 1"
IGNORES_TERM = "trap '' TERM\nwhile :; do sleep 0.2; done"
HAS_A_CHILD = 'sleep 3600 &\necho $! >> "$FOLDER/grandchildren"\nwait'


@dataclass
class Case:
    """A running supervisor with one child, and the folder in which the child writes down its PIDs."""

    folder: Path
    process: RunningProcess

    def started(self) -> list[int]:
        """Return the PIDs of all children started so far."""
        return _numbers(self.folder / "starts")

    def next_pid(self, seen: int) -> int:
        """Wait until more than `seen` children have started, and return the PID of the first child after
        those `seen`. Raises TimeoutError after DEADLINE_S seconds.
        """
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            if len(started := self.started()) > seen:
                return started[seen]
            time.sleep(0.0005)
        said = self.process.last_words()
        raise TimeoutError(f"{self.process.name} did not start the child within {DEADLINE_S:g} s. {said}")

    def stop(self) -> float:
        """Send SIGTERM to the supervisor, and return the seconds until it has exited."""
        began = time.monotonic()
        self.process.terminate(DEADLINE_S)
        return time.monotonic() - began

    def memory_mb(self) -> float:
        """Return the resident memory of the supervisor's processes, without those of its child, in MB."""
        top = psutil.Process(self.process.pid)
        own = [each for each in top.children(recursive=True) if each.pid not in self.started()]
        return sum(each.memory_info().rss for each in (top, *own)) / 2**20

    def survivors(self) -> list[int]:
        """Return the PIDs of all children and grandchildren that are still alive."""
        return [pid for pid in (*self.started(), *_numbers(self.folder / "grandchildren")) if _lives(pid)]


@contextlib.contextmanager
def case(peer: SupervisorPeer, script: str) -> Iterator[Case]:
    """Start the supervisor `peer` with one child, a shell script that runs the commands `script`, and yield
    both as a Case. At the end of the `with` block, kill the supervisor, the child and the child's own
    children. Raises PeerFailed if the supervisor or its child does not start.
    """
    with TemporaryDirectory(prefix="vestal-bench-") as name:
        folder = Path(name)
        child = folder / "child"
        child.write_text(f'#!/bin/sh\nFOLDER={folder}\necho $$ >> "$FOLDER/starts"\n{script}\n')
        child.chmod(0o700)
        made = Case(folder, peer.start(folder, child))
        try:
            yield made
        finally:
            made.process.kill()
            for pid in made.survivors():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def death_to_new_process(peer: SupervisorPeer, kills: int) -> dict[str, float]:
    """Kill the child `kills` times, each time after it has run long enough to be restarted without a backoff.
    Return the median and the longest time until the restart in ms, and the supervisor's memory in MB.
    """
    with case(peer, SLEEPS) as it:
        took = []
        for number in range(kills):
            pid = it.next_pid(number)
            time.sleep(BETWEEN_S)
            with ONE_AT_A_TIME:
                began = time.perf_counter()
                os.kill(pid, signal.SIGKILL)
                it.next_pid(number + 1)
                took.append((time.perf_counter() - began) * 1000)
        resident = it.memory_mb()
    return {
        "restart_p50_ms": statistics.median(took),
        "restart_max_ms": max(took),
        "memory_mb": resident,
    }


def crash_loop(peer: SupervisorPeer, seconds: float) -> dict[str, float]:
    """Give the supervisor a child that always exits at once, and observe it for `seconds` seconds. Return the
    child's starts per second and the supervisor's CPU time in percent of one core.
    """
    with case(peer, EXITS) as it:
        it.next_pid(0)
        time.sleep(seconds)
        times = psutil.Process(it.process.pid).cpu_times()
        starts = len(it.started())
        spent = times.user + times.system
    return {
        "crash_loop_starts_per_s": starts / seconds,
        "crash_loop_cpu_percent": 100 * spent / seconds,
    }


def ignores_term(peer: SupervisorPeer) -> dict[str, float]:
    """Stop the supervisor while its child ignores SIGTERM. Return the seconds until the supervisor has
    exited, and how many of its children are still alive then.
    """
    with case(peer, IGNORES_TERM) as it:
        it.next_pid(0)
        time.sleep(BETWEEN_S)
        took = it.stop()
        remaining = len(it.survivors())
    return {"stubborn_child_stop_s": took, "stubborn_child_left": remaining}


def grandchildren(peer: SupervisorPeer) -> dict[str, float]:
    """Kill a child that has a child of its own, wait for its restart, then stop the supervisor. Return how
    many grandchildren were left after the kill, and how many processes after the stop.
    """
    with case(peer, HAS_A_CHILD) as it:
        pid = it.next_pid(0)
        time.sleep(BETWEEN_S)
        os.kill(pid, signal.SIGKILL)
        it.next_pid(1)
        time.sleep(BETWEEN_S)
        strays = sum(map(_lives, _numbers(it.folder / "grandchildren")[:1]))
        it.stop()
        remaining = len(it.survivors())
    return {
        "grandchildren_strays": strays,
        "grandchildren_left_after_stop": remaining,
    }


def _numbers(file: Path) -> list[int]:
    try:
        return [int(line) for line in file.read_text().splitlines()]
    except (FileNotFoundError, ValueError):  # ValueError: a line is only half written
        return []


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
