"""The running processes of this machine, as `ps` lists them."""

import pwd

from vestal.platform import commands
from vestal.platform.processes import ps
from vestal.platform.processes.ps import PsProcess


def read() -> dict[int, PsProcess]:
    """Return the running processes, a dict from PID to process.

    Raises OSError if `ps` prints nothing, because it would be wrong to conclude that no process runs.
    """
    processes = ps.parse(commands.output(*ps.COMMAND) or "")
    if not processes:
        raise OSError(f"`{' '.join(ps.COMMAND)}` printed nothing")
    return processes


def user_name(uid: int) -> str:
    """Return the name of the user with this uid, or the uid as text if the user has no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
