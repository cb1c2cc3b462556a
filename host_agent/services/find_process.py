"""Find the process of a supervised child without its PID file."""

from collections.abc import Container
from pathlib import Path

from vestal.platform.processes import vestal_processes
from vestal.supervision import PID_FILE_VARIABLE


def find_supervised(pid_file: Path, excluded: Container[int] = ()) -> int | None:
    """Return the PID of the running process that a supervisor launched with this PID file, or None.

    None of the `excluded` PIDs is returned. The supervision library gives each child the path of its PID file
    in the environment.
    """
    return vestal_processes.group_leader(PID_FILE_VARIABLE, str(pid_file), excluded)
