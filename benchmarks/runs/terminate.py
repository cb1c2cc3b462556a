"""Stop the process of a scenario and all processes that it has started."""

from __future__ import annotations

import contextlib
import signal
import subprocess

import psutil

END_S = 30.0
"""How many seconds an interrupted scenario may take to stop its servers."""


def interrupt(process: subprocess.Popen[bytes], end_s: float = END_S) -> None:
    """Send SIGINT, wait up to `end_s` seconds for the process to end, then kill what is left of its process
    tree.
    """
    tree = _tree(process.pid)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    try:
        process.wait(end_s)
    except subprocess.TimeoutExpired:
        kill_tree(process.pid)
        process.wait()
    _kill(tree)


def kill_tree(pid: int) -> None:
    """Kill the descendants of a process, then the process itself."""
    _kill([*_tree(pid)[1:], *_tree(pid)[:1]])


def _tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()  # psutil compares creation times, so it spares a process with a reused PID
