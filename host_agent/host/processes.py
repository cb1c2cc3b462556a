"""Processes, known by PID and start time: a PID alone may have been given to another one."""

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import psutil

SAME_START_S = 1.0  # psutil derives the time from the boot clock, which the wall clock's steps move a little


@dataclass(frozen=True)
class Identity:
    """One process and no other."""

    pid: int
    start_time: float

    def is_alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        started = start_time(self.pid)
        return started is not None and abs(started - self.start_time) <= SAME_START_S

    def send(self, number: signal.Signals) -> bool:
        """Signal it; False where it is gone or not ours to signal."""
        if not self.is_alive():
            return False
        try:
            os.kill(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def start_time(pid: int) -> float | None:
    """When the process started, in seconds since 1970; None where there is none (or only a zombie)."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def own_identity() -> Identity:
    """This process."""
    return Identity(os.getpid(), psutil.Process().create_time())


def command_line(pid: int) -> str:
    """The command line of a process, or its name, or nothing."""
    try:
        process = psutil.Process(pid)
        return " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return ""


def read_identity(path: Path) -> Identity | None:
    """The process that a PID file {"pid", "start_time"} names, whether it lives or not."""
    try:
        data = json.loads(path.read_text())
        return Identity(int(data["pid"]), float(data["start_time"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_identity(path: Path, identity: Identity) -> None:
    """Write a PID file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps({"pid": identity.pid, "start_time": identity.start_time}))
    temporary.replace(path)
