"""Parse `ps` of macOS and Linux: every process of the machine, with its parent and its owner. Pure.

On a Mac, psutil cannot read the command line of another user's process, but `ps` can.
"""

import re
from dataclasses import dataclass

# Each column has its own `-o`: the ps of BSD takes all that follows an equals sign for a column's title.
COLUMNS = ("pid=", "ppid=", "uid=", "stat=", "etime=", "command=")
COMMAND = ("ps", "-axww", *(word for column in COLUMNS for word in ("-o", column)))
_LINE = re.compile(r"^\s*(\d+)\s+(\d+)\s+(\d+)\s+(\S+)\s+(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)\s+(.*)$")


@dataclass(frozen=True)
class PsProcess:
    """One process, as a line of `ps` describes it.

    `parent` is the parent's PID, `state` the letters in the column STAT, `age_s` the whole seconds since the
    process started, and `command` its command line.
    """

    pid: int
    parent: int
    uid: int
    state: str
    age_s: int
    command: str

    @property
    def is_zombie(self) -> bool:
        """Return whether the process has ended and waits for its parent to read its exit status."""
        return self.state.startswith("Z")


def parse(text: str) -> dict[int, PsProcess]:
    """Return the processes in `text`, the output of COMMAND, by PID. A malformed line is skipped."""
    found = (_process(match) for line in text.splitlines() if (match := _LINE.match(line)))
    return {process.pid: process for process in found}


def _process(match: re.Match[str]) -> PsProcess:
    pid, parent, uid, state, days, hours, minutes, seconds, command = match.groups()
    age_s = ((int(days or 0) * 24 + int(hours or 0)) * 60 + int(minutes)) * 60 + int(seconds)
    return PsProcess(int(pid), int(parent), int(uid), state, age_s, command.rstrip())
