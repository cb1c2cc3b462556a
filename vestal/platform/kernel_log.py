"""Parse Linux's kernel log: which processes the kernel killed for memory, and when the machine woke. Pure.

Its lines come from `journalctl -k -o short-unix`: `SECONDS.FRACTION HOST kernel: TEXT`.
"""

import re
from dataclasses import dataclass

OOM_KILLS_COMMAND = (
    *("journalctl", "-k", "-q", "--no-pager", "-o", "short-unix"),
    *("--since", "-24h", "--grep", "Killed process"),
)
LAST_WAKE_COMMAND = (
    *("journalctl", "-k", "-b", "-q", "--no-pager", "-o", "short-unix"),
    *("-n", "1", "--grep", "PM: suspend exit"),
)
_KILL = re.compile(r"^(\d+\.\d+) .*?(out of memory: )?Killed process (\d+) \((.*?)\)", re.IGNORECASE)
_RSS = re.compile(r"anon-rss:(\d+)kB")
_WAKE = re.compile(r"^(\d+\.\d+) .*PM: suspend exit", re.MULTILINE)


@dataclass(frozen=True)
class OomKill:
    """One process that the kernel killed for memory.

    `at` is in seconds since 1970. `by_own_limit` is true for a process that exceeded a limit of its own (its
    cgroup's, or macOS's per-process limit), and false if the whole machine had no memory left.
    """

    at: float
    pid: int
    name: str
    held_bytes: int
    by_own_limit: bool


def oom_kills(text: str) -> list[OomKill]:
    """Return every kill for lack of memory in `text`, oldest first. `text` is the output of
    OOM_KILLS_COMMAND, which prints lines of Linux's kernel log.
    """
    return [
        OomKill(float(found[1]), int(found[3]), found[4], _rss_bytes(line), "cgroup out of memory" in line)
        for line in text.splitlines()
        if (found := _KILL.match(line))
    ]


def last_wake(text: str) -> float | None:
    """Return when the machine last woke, in seconds since 1970. `text` is the output of LAST_WAKE_COMMAND.

    None if the output contains no wake: the machine has not slept since its boot, or the log is unreadable.
    """
    times = _WAKE.findall(text)
    return float(times[-1]) if times else None


def _rss_bytes(line: str) -> int:
    found = _RSS.search(line)
    return int(found[1]) * 1024 if found else 0
