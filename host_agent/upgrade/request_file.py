"""The environment in which `vestal up` asks for an upgrade: settings may stand in it.

It goes by a file that only its owner can write, and not by HTTP: a client of the listener may not choose
what the agent executes.
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
    """The Python program that is to run the agent, and its environment."""

    executable: str
    environment: dict[str, str]


def write(config: Config) -> None:
    """Ask for this program's own Python and environment. Raises OSError."""
    environment = {**os.environ, **child_environment.common(config)}
    write_file(_path(config.home), json.dumps({"executable": sys.executable, "environment": environment}))


def remove(home: Home) -> None:
    """Withdraw what was asked for and has not been taken."""
    with contextlib.suppress(OSError):
        _path(home).unlink(missing_ok=True)


def take(home: Home) -> UpgradeRequest:
    """Return what was asked for, and remove the file. Without one it is what this process has itself.

    The log of the agent stays the one that it has.
    """
    asked: dict[str, object] = {}
    with contextlib.suppress(OSError, ValueError):
        asked = json.loads(_path(home).read_text())
    remove(home)
    environment = asked.get("environment")
    chosen = environment if isinstance(environment, dict) else dict(os.environ)
    chosen = {str(name): str(value) for name, value in chosen.items()}
    chosen.pop(LOG_VARIABLE, None)
    if log := os.environ.get(LOG_VARIABLE):
        chosen[LOG_VARIABLE] = log
    return UpgradeRequest(str(asked.get("executable") or sys.executable), chosen)


def own() -> UpgradeRequest:
    """Return this process's own Python and environment."""
    return UpgradeRequest(sys.executable, dict(os.environ))


def _path(home: Home) -> Path:
    return home.run / "upgrade.request"
