"""Count the processes that Linux has killed for memory, to distinguish such a kill from any other SIGKILL."""

from __future__ import annotations

from pathlib import Path

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")


def count(proc: Path = PROC, cgroup: Path = CGROUP) -> int | None:
    """Return how many processes the kernel has killed for memory so far; None if it does not say, as on
    macOS.

    The processes are those of this process's cgroup (version 2). Without such a count they are those of the
    whole machine.
    """
    try:
        unified = next(
            line for line in (proc / "self/cgroup").read_text().splitlines() if line.startswith("0::")
        )
        own = _figure(cgroup / unified.removeprefix("0::").lstrip("/") / "memory.events")
    except (OSError, StopIteration):
        own = None
    return own if own is not None else _figure(proc / "vmstat")


def _figure(path: Path) -> int | None:
    """Return the number on the line `oom_kill N` of the file; None if the file is unreadable or has no such
    line.
    """
    try:
        figures = dict(line.split(maxsplit=1) for line in path.read_text().splitlines())
        return int(figures["oom_kill"])
    except (OSError, KeyError, ValueError):
        return None
