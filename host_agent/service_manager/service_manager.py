"""The service manager of this machine: launchd on macOS, systemd on Linux.

An installation has either two jobs or one. The two are the agent, which is restarted when it fails, and a
recovery pass at boot and every 300 s, which starts the agent if it is dead. The one is the MLX server alone.
No file of a job holds a secret: the API token is in a file of its own in the Vestal home.
"""

import os
import pwd
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from host_agent.service_manager import launchd
from host_agent.service_manager.jobs import AGENT, InstalledProgram, JobSettings, JobState
from host_agent.service_manager.launchd import Launchd
from host_agent.service_manager.systemd import Systemd
from host_agent.service_manager.unit_files import UnitFile
from vestal.config import Home
from vestal.platform.commands import Commands

OVERRIDE_VARIABLE = "VESTAL_SERVICE_MANAGER"  # launchd or systemd: for tests on the other platform


class ServiceManager(Protocol):
    """The interface of launchd and systemd for the commands install, uninstall, up and down.

    Methods that return str return a sentence about a problem, or an empty string if there is none.
    """

    @property
    def name(self) -> str:
        """Return `launchd` or `systemd`."""

    @property
    def file_mode(self) -> int:
        """Return the permissions of the files that define the jobs (property lists or units)."""

    @property
    def needs_root(self) -> bool:
        """Return True if only root may write and load the jobs, and this process is not root."""

    def render(self, jobs: tuple[str, ...], settings: JobSettings) -> list[UnitFile]:
        """Return the files of these jobs, with their text, without writing them."""

    def paths(self, job: str) -> list[Path]:
        """Return the paths of the files that define a job, whether they exist or not: its property list
        (launchd), or its service file and, for the job of the recovery passes, also its timer file (systemd).
        """

    def installed_jobs(self) -> list[str]:
        """Return the jobs whose files exist."""

    def installed_program(self, job: str) -> InstalledProgram:
        """Return the Python and the checkout that an installed job starts. Raises OSError, ValueError or
        KeyError if the job's file cannot be read.
        """

    def unavailable_reason(self) -> str:
        """Return why no job can be installed on this machine; "" if jobs can be installed."""

    def no_session_reason(self) -> str:
        """Return why no job can be loaded before this user's next login, although its file can be written;
        "" if jobs can be loaded now.
        """

    def reload(self) -> str:
        """Make the service manager read changed files again. Return a sentence about a problem, or "" if
        there is none.
        """

    def state(self, job: str) -> JobState:
        """Return the state of a job, as the service manager reports it."""

    def load(self, job: str, changed: bool) -> str:
        """Load and start a job. If its file has `changed`, stop a running job gracefully first. Return a
        sentence about a problem, or "" if there is none.
        """

    def unload(self, job: str) -> str:
        """Stop a job gracefully, and unload it, so that it is not started again. Return a sentence about a
        problem, or "" if there is none.
        """

    def start(self) -> list[str]:
        """Load and start every installed job, for example after `stop`. Return the problems."""

    def stop(self) -> list[str]:
        """Stop every installed job until the next login; the files stay. Return the problems."""


def managers(
    home: Home, commands: Commands | None = None, env: Mapping[str, str] = os.environ
) -> list[ServiceManager]:
    """Return one manager for each place where jobs of this home can be; `vestal install` uses the first.

    On macOS these are LaunchAgents and LaunchDaemons, on Linux the user units.
    """
    commands = commands or Commands()
    user = pwd.getpwuid(os.getuid())
    user_folder = Path(env.get("HOME") or user.pw_dir)
    default = Launchd.name if sys.platform == "darwin" else Systemd.name
    if (env.get(OVERRIDE_VARIABLE) or default) == Launchd.name:
        domains = (launchd.agents(user_folder, user.pw_uid), launchd.daemons(user.pw_name, user.pw_uid))
        return [Launchd(home, commands, domain) for domain in domains]
    settings_folder = Path(env.get("XDG_CONFIG_HOME") or user_folder / ".config")
    return [Systemd(home, commands, settings_folder / "systemd" / "user")]


def is_agent_installed(home: Home) -> bool:
    """Return True if a service manager restarts this home's agent."""
    return any(AGENT in manager.installed_jobs() for manager in managers(home))


def is_any_job_installed(home: Home) -> bool:
    """Return True if any job of this home is installed."""
    return any(manager.installed_jobs() for manager in managers(home))


def start_installed_jobs(home: Home) -> list[str]:
    """Start every installed job of this home, and return the problems."""
    return [problem for manager in managers(home) for problem in manager.start()]


def stop_installed_jobs(home: Home) -> list[str]:
    """Stop every installed job of this home until the next login, and return the problems."""
    return [problem for manager in managers(home) for problem in manager.stop()]


def stale_reason(manager: ServiceManager, job: str, checkout: Path) -> str:
    """Return why an installed job no longer starts this `checkout`, or an empty string if it does.

    Its Python or its checkout may have been moved or deleted since the installation.
    """
    try:
        program = manager.installed_program(job)
    except (OSError, ValueError, KeyError) as error:
        return f"its file cannot be read ({error})"
    if not program.checkout.is_dir():
        return f"its checkout {program.checkout} is gone"
    if not program.python.exists():
        return f"its Python {program.python} is gone"
    if program.checkout.resolve() != checkout.resolve():
        return f"it runs another checkout, {program.checkout}"
    return ""
