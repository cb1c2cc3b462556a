"""The service manager of this machine: launchd on macOS, systemd on Linux.

Two jobs for each home: the agent, kept alive, and a recovery pass at boot and every 300 s, which also starts
a dead agent (R4.3); or the MLX server alone.

Secrets are in no unit: the token is in its own file.
"""

import os
import pwd
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from host_agent.service_manager import launchd
from host_agent.service_manager.job_state import JobState
from host_agent.service_manager.launchd import Launchd
from host_agent.service_manager.systemd import Systemd
from host_agent.service_manager.unit import AGENT, JobSettings, Unit, Written
from vestal.config import Home
from vestal.platform.commands import Commands

OTHER_THAN_THE_PLATFORMS = "VESTAL_SERVICE_MANAGER"  # launchd or systemd: for tests on the other platform


class ServiceManager(Protocol):
    """What install, uninstall, up and down ask of it. A problem is a sentence; an empty one is none."""

    @property
    def name(self) -> str:
        """launchd or systemd."""

    @property
    def mode(self) -> int:
        """Of the files that it is to write."""

    @property
    def needs_root(self) -> bool:
        """Whether only root may write and load them, and this is not root."""

    def units(self, names: tuple[str, ...], told: JobSettings) -> list[Unit]:
        """What an installation of these jobs writes."""

    def paths(self, name: str) -> list[Path]:
        """The files of a job."""

    def present(self) -> list[str]:
        """The jobs whose files exist."""

    def written(self, name: str) -> Written:
        """What an installed job starts. OSError, ValueError or KeyError where its file tells nothing."""

    def refusal(self) -> str:
        """Why nothing can be installed here."""

    def reload(self) -> str:
        """Files have changed."""

    def state(self, name: str) -> JobState:
        """What the manager says of a job."""

    def load(self, name: str, changed: bool) -> str:
        """A job is loaded and runs; it is stopped in order before, where its file has changed."""

    def unload(self, name: str) -> str:
        """A job is stopped in order and no longer started."""

    def start(self) -> list[str]:
        """What is installed runs again, after a `stop` or where the manager has let go of it."""

    def stop(self) -> list[str]:
        """What is installed is stopped until the next login; the files stay."""


def managers(
    home: Home, commands: Commands | None = None, env: Mapping[str, str] = os.environ
) -> list[ServiceManager]:
    """Every place where jobs of this home can be; the one that `vestal install` takes comes first."""
    commands = commands or Commands()
    user = pwd.getpwuid(os.getuid())
    folder = Path(env.get("HOME") or user.pw_dir)
    if (env.get(OTHER_THAN_THE_PLATFORMS) or _of_platform()) == Launchd.name:
        places = (launchd.agents(folder, user.pw_uid), launchd.daemons(user.pw_name, user.pw_uid))
        return [Launchd(home, commands, place) for place in places]
    settings = Path(env.get("XDG_CONFIG_HOME") or folder / ".config")
    return [Systemd(home, commands, settings / "systemd" / "user")]


def python() -> str:
    """The full path of the Python that runs this: what the units start."""
    return sys.executable


def keeps_agent(home: Home) -> bool:
    """Whether an agent of this home is installed."""
    return any(AGENT in manager.present() for manager in managers(home))


def is_installed(home: Home) -> bool:
    return any(manager.present() for manager in managers(home))


def start(home: Home) -> list[str]:
    """What is installed runs; the problems."""
    return [problem for manager in managers(home) for problem in manager.start()]


def stop(home: Home) -> list[str]:
    """What is installed is stopped until the next login; the problems."""
    return [problem for manager in managers(home) for problem in manager.stop()]


def _of_platform() -> str:
    return Launchd.name if sys.platform == "darwin" else Systemd.name
