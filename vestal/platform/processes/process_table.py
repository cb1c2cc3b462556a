"""Looks at the processes of this machine: one by one, a line of ancestors, or all of one kind."""

import os
from collections.abc import Callable
from typing import TypeVar

import psutil

from vestal.platform.processes.process_seen import ProcessSeen

ANCESTORS = 12
T = TypeVar("T")


def seen(pid: int) -> ProcessSeen | None:
    """The process with this PID; None where there is none, or only a zombie."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            started_at, name, ppid = process.create_time(), process.name(), process.ppid()
    except psutil.Error:
        return None
    return ProcessSeen(
        pid=pid,
        ppid=ppid,
        name=name,
        arguments=tuple(_quietly(process.cmdline, [])),
        exe=_quietly(process.exe, ""),
        user=_quietly(process.username, ""),
        started_at=started_at,
        home=_quietly(lambda: process.environ().get("VESTAL_HOME", ""), ""),
    )


def ancestors(process: ProcessSeen) -> tuple[ProcessSeen, ...]:
    """Its parent, the parent's parent and so on, up to the first process of the system."""
    line: list[ProcessSeen] = []
    parent = process.ppid
    while parent > 0 and len(line) < ANCESTORS and (above := seen(parent)):
        line.append(above)
        parent = above.ppid
    return tuple(line)


def named(*fragments: str) -> tuple[ProcessSeen, ...]:
    """Every process whose name or command line has one of these words in it."""
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        told = " ".join([process.info["name"] or "", *(process.info["cmdline"] or [])])
        if any(fragment in told for fragment in fragments) and (one := seen(process.pid)):
            found.append(one)
    return tuple(found)


def cpu_s(pid: int) -> float:
    """Seconds of CPU that the process has used so far; 0 where that is not told."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def rss_bytes(pid: int) -> int:
    """Memory it holds; 0 where that is not told."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def me() -> str:
    """The user this process runs as."""
    return str(_quietly(psutil.Process(os.getpid()).username, ""))


def _quietly(ask: Callable[[], T], otherwise: T) -> T:
    try:
        return ask()
    except (psutil.Error, KeyError, OSError):
        return otherwise
