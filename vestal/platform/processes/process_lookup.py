"""Read processes of this machine by PID, by ancestry or by name."""

import os
from collections.abc import Callable, Mapping
from typing import TypeVar

import psutil

from vestal.platform.processes.process_snapshot import ProcessSnapshot

MAX_ANCESTORS = 12
T = TypeVar("T")


def snapshot(pid: int) -> ProcessSnapshot | None:
    """Return the process with this PID; None if there is none, or only a zombie."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            started_at, name, ppid = process.create_time(), process.name(), process.ppid()
    except psutil.Error:
        return None
    return ProcessSnapshot(
        pid=pid,
        ppid=ppid,
        name=name,
        arguments=tuple(_read_or(process.cmdline, [])),
        exe=_read_or(process.exe, ""),
        user=_read_or(process.username, ""),
        started_at=started_at,
        home=_read_or(lambda: _home(process.environ()), ""),
    )


def _home(environment: Mapping[str, str]) -> str:
    """Return the folder in the variable VESTAL_HOME of `environment`; "" if the variable is unset. Resolve
    `.` and `..` in its path, as the configuration does, so that the two can be compared.
    """
    home = environment.get("VESTAL_HOME", "")
    return os.path.normpath(home) if home else ""


def ancestors(process: ProcessSnapshot) -> tuple[ProcessSnapshot, ...]:
    """Return the parent of the process, the parent's parent, and so on up to the system's first process."""
    found: list[ProcessSnapshot] = []
    ppid = process.ppid
    while ppid > 0 and len(found) < MAX_ANCESTORS and (parent := snapshot(ppid)):
        found.append(parent)
        ppid = parent.ppid
    return tuple(found)


def find_by_words(*fragments: str) -> tuple[ProcessSnapshot, ...]:
    """Return every process whose name or command line contains one of the fragments."""
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        words = " ".join([process.info["name"] or "", *(process.info["cmdline"] or [])])
        if any(fragment in words for fragment in fragments) and (one := snapshot(process.pid)):
            found.append(one)
    return tuple(found)


def variable(pid: int, name: str) -> str:
    """Return a variable in the environment of the process; empty if it is unset or not disclosed."""
    return _read_or(lambda: psutil.Process(pid).environ().get(name, ""), "")


def shares_network(pid: int) -> bool:
    """Return whether the process has the same network namespace as this one; a container on Linux has its
    own. Return True if the namespaces cannot be read, as on a Mac.
    """
    try:
        return os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")
    except OSError:
        return True


def cpu_s(pid: int) -> float:
    """Return the CPU time that the process has used, in seconds; 0 if it cannot be read."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def rss_bytes(pid: int) -> int:
    """Return the resident memory of the process in bytes; 0 if it cannot be read."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def is_suspended(pid: int) -> bool:
    """Return whether the process was stopped by SIGSTOP, so that it cannot act on SIGTERM before SIGCONT."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False


def command_line(pid: int) -> str:
    """Return the command line of the process, or its name if that is hidden; empty for no process."""
    try:
        process = psutil.Process(pid)
        return " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return ""


def current_user() -> str:
    """Return the name of the user who runs this process."""
    return str(_read_or(psutil.Process(os.getpid()).username, ""))


def _read_or(read: Callable[[], T], default: T) -> T:
    try:
        return read()
    except (psutil.Error, KeyError, OSError):
        return default
