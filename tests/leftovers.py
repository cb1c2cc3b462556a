"""Ends what an interrupted run of the tests leaves behind.

Tests start servers in sessions of their own, which Ctrl-C does not reach, and pytest-xdist ends its workers
without running their fixtures' ends. The processes inherit a variable that names the run.
"""

from __future__ import annotations

import contextlib
import os
import secrets

import psutil

VARIABLE = "TESTS_OF_RUN"


def mark_run() -> None:
    """Name this run in the environment of all processes that it will start."""
    os.environ[VARIABLE] = secrets.token_hex(8)


def end_leftovers() -> list[str]:
    """Kill the processes of this run that are still alive, and return their command lines."""
    run, ended = os.environ[VARIABLE], []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(VARIABLE) == run:
                command = " ".join(process.cmdline())
                process.kill()
                ended.append(f"{process.pid} {command}")
    return ended
