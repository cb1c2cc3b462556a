"""Read when a process started: from /proc on Linux, from libproc on macOS, from `ps` elsewhere.

If this process has no free file descriptor, it may be unable to read anything about a process that runs. Then
`start_time` returns None as for a process that has ended, and `has_ended` returns False.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import time

from vestal.best_effort.files import EXHAUSTED

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def start_time(pid: int) -> float | None:
    """Return when the process started: in seconds since boot on Linux, and since 1970 elsewhere.

    Return None if there is no such process, or if it is a zombie. Return None also if nothing can be read
    now, such as when no descriptor is left; `has_ended` then returns False, but True in the other two cases.
    """
    try:
        return _read_start_time(pid)
    except OSError:
        return None


def has_ended(pid: int) -> bool:
    """Return whether there is surely no such process, or only a zombie. Return False if nothing can be read
    now, such as when no descriptor is left.
    """
    try:
        return _read_start_time(pid) is None
    except OSError:
        return False


def _read_start_time(pid: int) -> float | None:
    """Return when the process started: in seconds since boot on Linux, and since 1970 elsewhere. Return None
    if there is no such process, or only a zombie. Raises OSError if nothing can be read now.
    """
    if sys.platform == "linux":
        return _linux_start_time(pid)
    if sys.platform == "darwin":
        return _darwin_start_time(pid)
    return _ps_start_time(pid)


def _linux_start_time(pid: int) -> float | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b") ")[2].split()  # the name in parentheses may contain anything
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        return None  # it has ended, or belongs to another user whose processes are hidden
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19]) / _TICKS_PER_S


class BsdInfo(ctypes.Structure):
    """The C struct `proc_bsdinfo` of <sys/proc_info.h>. Fields that are not used here have
    numbers for names.
    """

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
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    return parse_ps(done.stdout)


def parse_ps(line: str) -> float | None:
    """Return the start time of the process that `line` describes, in seconds since 1970. Return None if the
    process is a zombie, or if `line` has no start time, or one in an unknown form.

    `line` is the output of `ps -o stat= -o lstart=`, such as `S+ Sun Nov 16 10:31:05 2025` (local time).
    """
    stat, _, started = line.strip().partition(" ")
    if not started or stat.startswith("Z"):
        return None
    with contextlib.suppress(ValueError):
        return time.mktime(time.strptime(started.strip(), "%a %b %d %H:%M:%S %Y"))
    return None
