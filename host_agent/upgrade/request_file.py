"""The request of `vestal up` for an upgrade: Python and environment (settings included) of the new agent.

It is passed in a file that only its owner can write, and not by HTTP, because an HTTP client of the agent may
not choose the program that the agent executes.
"""

import contextlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from host_agent.services import child_environment
from vestal.best_effort.files import write_file
from vestal.best_effort.output import LOG_VARIABLE
from vestal.config import Config, Home


@dataclass(frozen=True)
class UpgradeRequest:
    """The Python executable that is to run the new agent, and its environment."""

    executable: str
    environment: dict[str, str]


def write(config: Config) -> None:
    """Write the upgrade request to the file from which the running agent reads it. The request is for a new
    agent with the Python and the environment of this process. Raises OSError if the file cannot be written.
    """
    environment = {**os.environ, **child_environment.common(config)}
    write_file(_path(config.home), json.dumps({"executable": sys.executable, "environment": environment}))


def remove(home: Home) -> None:
    """Delete the file that holds the request, if there is one. An error is ignored."""
    with contextlib.suppress(OSError):
        _path(home).unlink(missing_ok=True)


def take(home: Home) -> UpgradeRequest:
    """Return the request, and delete its file. If there is no valid file, return a request for the Python and
    environment of this process.

    In either case the environment names this process's log file, because the new agent writes to the same
    log.
    """
    asked: object = None
    with contextlib.suppress(OSError, ValueError, RecursionError):
        asked = json.loads(_path(home).read_text())
    remove(home)
    asked = asked if isinstance(asked, dict) else {}
    environment = asked.get("environment")
    chosen = environment if isinstance(environment, dict) else dict(os.environ)
    chosen = {str(name): str(value) for name, value in chosen.items()}
    chosen.pop(LOG_VARIABLE, None)
    if log := os.environ.get(LOG_VARIABLE):
        chosen[LOG_VARIABLE] = log
    return UpgradeRequest(str(asked.get("executable") or sys.executable), chosen)


def own() -> UpgradeRequest:
    """Return the upgrade request for a new agent with the Python and the environment of this process."""
    return UpgradeRequest(sys.executable, dict(os.environ))


def _path(home: Home) -> Path:
    return home.run / "upgrade.request"
