"""The processes of this machine, as `ps` shows them now."""

import pwd

from vestal.platform import commands
from vestal.platform.processes import ps
from vestal.platform.processes.ps import PsProcess


def read() -> dict[int, PsProcess]:
    """Return the processes by PID.

    Raises OSError if `ps` prints nothing: it would be wrong to conclude that no process runs.
    """
    processes = ps.parse(commands.output(*ps.COMMAND) or "")
    if not processes:
        raise OSError(f"`{' '.join(ps.COMMAND)}` printed nothing")
    return processes


def user_name(uid: int) -> str:
    """Return the name of a user, or the number of a user without a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
