"""The user's service manager: launchd on macOS, systemd on Linux. Two units for each home:
the agent, kept alive; and a recovery pass at boot and every 300 s, which also starts a dead agent (R4.3).

Secrets are in no unit: the token is in its own file.
"""

import subprocess
import sys
from pathlib import Path

from host_agent.config import Home
from host_agent.host import launchd, systemd
from host_agent.host.unit import Unit

COMMAND_WITHIN_S = 60

platform = launchd if sys.platform == "darwin" else systemd


def units(home: Home, environment: dict[str, str], cwd: Path) -> list[Unit]:
    """What an installation writes. `environment` has what the agent must be told, PATH included."""
    return platform.units(home, environment, cwd)


def commands(home: Home, install: bool) -> list[list[str]]:
    """What is run after the files are written, or before they are removed."""
    return platform.install_commands(home) if install else platform.uninstall_commands(home)


def is_installed(home: Home) -> bool:
    return platform.path(home).exists()


def start(home: Home) -> None:
    """After a `stop`, or where the manager has let go of it."""
    for command in platform.start_commands(home):
        run(command)


def stop(home: Home) -> None:
    """Until the next login; the files stay."""
    for command in platform.stop_commands(home):
        run(command)


def run(command: list[str]) -> str:
    """Run a command of the manager's; what went wrong, or nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_WITHIN_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"`{' '.join(command)}`: {error}"
    return "" if done.returncode == 0 else f"`{' '.join(command)}`: {done.stderr.strip() or done.returncode}"
