"""Reads lines of Linux's kernel log: whom the kernel killed for memory, and when the machine woke. Pure.

As `journalctl -k -o short-unix` gives them: `SECONDS.FRACTION HOST kernel: TEXT`.
"""

import re
from dataclasses import dataclass

KILLS = (
    *("journalctl", "-k", "-q", "--no-pager", "-o", "short-unix"),
    *("--since", "-24h", "--grep", "Killed process"),
)
WAKES = (
    *("journalctl", "-k", "-b", "-q", "--no-pager", "-o", "short-unix"),
    *("-n", "1", "--grep", "PM: suspend exit"),
)
_KILL = re.compile(r"^(\d+\.\d+) .*?(out of memory: )?Killed process (\d+) \((.*?)\)", re.IGNORECASE)
_RSS = re.compile(r"anon-rss:(\d+)kB")
_TIME = re.compile(r"^(\d+\.\d+) .*PM: suspend exit", re.MULTILINE)


@dataclass(frozen=True)
class Kill:
    """One process that the kernel killed. `at` in seconds since 1970; `by_group`: over its cgroup's limit."""

    at: float
    pid: int
    name: str
    held_bytes: int
    by_group: bool


def kills(text: str) -> list[Kill]:
    """Every one, oldest first."""
    return [
        Kill(float(found[1]), int(found[3]), found[4], _held(line), "cgroup out of memory" in line)
        for line in text.splitlines()
        if (found := _KILL.match(line))
    ]


def last_wake(text: str) -> float | None:
    """In seconds since 1970; None where it has not slept."""
    times = _TIME.findall(text)
    return float(times[-1]) if times else None


def _held(line: str) -> int:
    found = _RSS.search(line)
    return int(found[1]) * 1024 if found else 0
