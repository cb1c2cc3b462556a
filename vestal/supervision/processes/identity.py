"""Which process is meant: PID and start time together, since PIDs are used again; and the PID file."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")
_SAME_START_S = 0.011  # Linux counts in 10 ms ticks, macOS in µs; a JSON round trip is exact


@dataclass(frozen=True)
class ProcessIdentity:
    """`start_time`: seconds since boot on Linux (then `boot` says which), since the epoch elsewhere."""

    pid: int
    start_time: float
    boot: str = ""

    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        if self.boot and self.boot != boot_id():
            return False
        now = start_time(self.pid)
        return now is not None and abs(now - self.start_time) < _SAME_START_S


def identify(pid: int) -> ProcessIdentity | None:
    """The identity of a running process; None where there is none."""
    started = start_time(pid)
    return None if started is None else ProcessIdentity(pid, started, boot_id())


def start_time(pid: int) -> float | None:
    """When the process started; None for no such process and for a zombie."""
    if sys.platform == "linux":
        return _linux_start_time(pid)
    if sys.platform == "darwin":
        return _darwin_start_time(pid)
    return _ps_start_time(pid)


def age_s(identity: ProcessIdentity) -> float:
    """How long it has run, in seconds."""
    if sys.platform == "linux":
        with open("/proc/uptime") as uptime:
            return max(0.0, float(uptime.read().split()[0]) - identity.start_time)
    return max(0.0, time.time() - identity.start_time)


def boot_id() -> str:
    """Linux start times count from boot, so they need to know which. Empty elsewhere."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _linux_start_time(pid: int) -> float | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b") ")[2].split()  # the name before it may hold anything
    except OSError:
        return None
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19]) / _TICKS


class BsdInfo(ctypes.Structure):
    """`struct proc_bsdinfo` of <sys/proc_info.h>."""

    _fields_ = (
        *((f"head{n}", ctypes.c_uint32) for n in range(12)),
        ("comm", ctypes.c_char * 16),
        ("name", ctypes.c_char * 32),
        *((f"tail{n}", ctypes.c_uint32) for n in range(6)),
        ("start_tvsec", ctypes.c_uint64),
        ("start_tvusec", ctypes.c_uint64),
    )


PROC_PIDTBSDINFO = 3
SZOMB = 5


def _darwin_start_time(pid: int) -> float | None:
    info = BsdInfo()
    size = ctypes.sizeof(info)
    libproc = ctypes.CDLL("/usr/lib/libproc.dylib", use_errno=True)
    got = libproc.proc_pidinfo(pid, PROC_PIDTBSDINFO, ctypes.c_uint64(0), ctypes.byref(info), size)
    if got != size or info.head1 == SZOMB:
        return None
    return float(info.start_tvsec) + info.start_tvusec / 1e6


def _ps_start_time(pid: int) -> float | None:
    command = ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]
    told = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    return parse_ps(told.stdout)


def parse_ps(line: str) -> float | None:
    """`S+ Sun Nov 16 10:31:05 2025` as seconds since the epoch."""
    stat, _, started = line.strip().partition(" ")
    if not started or stat.startswith("Z"):
        return None
    with contextlib.suppress(ValueError):
        return time.mktime(time.strptime(started.strip(), "%a %b %d %H:%M:%S %Y"))
    return None


def read_pid_file(path: Path) -> ProcessIdentity | None:
    """The identity in a PID file; None where there is no file or it is not one of ours."""
    try:
        told: Any = json.loads(path.read_text())
        return ProcessIdentity(int(told["pid"]), float(told["start_time"]), str(told.get("boot", "")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write_pid_file(path: Path, identity: ProcessIdentity) -> None:
    """Atomically: a reader finds the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(identity.__dict__))
    os.replace(fresh, path)


def remove_pid_file(path: Path, pid: int) -> None:
    """Removes it if it still names `pid`."""
    held = read_pid_file(path)
    if held is not None and held.pid == pid:
        path.unlink(missing_ok=True)
