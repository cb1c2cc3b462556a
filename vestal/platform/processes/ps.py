"""Reads `ps`, of macOS and of Linux alike: every process of the machine, with its parent and its owner. Pure.

psutil may not read the command line of another user's process on a Mac; `ps` may.
"""

import re
from dataclasses import dataclass

# Each with an `-o` of its own: to BSD's ps all that follows an equals sign is the column's title.
COLUMNS = ("pid=", "ppid=", "uid=", "stat=", "etime=", "command=")
COMMAND = ("ps", "-axww", *(word for column in COLUMNS for word in ("-o", column)))
_LINE = re.compile(r"^\s*(\d+)\s+(\d+)\s+(\d+)\s+(\S+)\s+(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)\s+(.*)$")


@dataclass(frozen=True)
class Process:
    """One line. `age_s` has whole seconds."""

    pid: int
    parent: int
    uid: int
    state: str
    age_s: int
    command: str

    @property
    def is_zombie(self) -> bool:
        return self.state.startswith("Z")


def parse(text: str) -> dict[int, Process]:
    """By PID. A line that is none is passed over."""
    found = (_process(match) for line in text.splitlines() if (match := _LINE.match(line)))
    return {process.pid: process for process in found}


def _process(match: re.Match[str]) -> Process:
    pid, parent, uid, state, days, hours, minutes, seconds, command = match.groups()
    age_s = ((int(days or 0) * 24 + int(hours or 0)) * 60 + int(minutes)) * 60 + int(seconds)
    return Process(int(pid), int(parent), int(uid), state, age_s, command.rstrip())
