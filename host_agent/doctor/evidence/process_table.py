"""The machine's processes, as `ps` tells them now."""

import pwd

from vestal.platform import commands
from vestal.platform.processes import ps
from vestal.platform.processes.ps import PsProcess


def read() -> dict[int, PsProcess]:
    """By PID. Raises OSError where `ps` tells nothing: then nobody may say that no process is there."""
    found = ps.parse(commands.output(*ps.COMMAND) or "")
    if not found:
        raise OSError(f"`{' '.join(ps.COMMAND)}` told nothing")
    return found


def user(uid: int) -> str:
    """The name of a user, or the number of one without."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
