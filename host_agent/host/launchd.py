"""launchd's files and commands. Keys as in launchd.plist(5)."""

import os
import plistlib
from pathlib import Path

from host_agent.config import Home
from host_agent.host.unit import AGENT, RECOVER, RECOVER_EACH_S, STOP_WITHIN_S, Unit, program


def units(home: Home, environment: dict[str, str], cwd: Path) -> list[Unit]:
    return [Unit(path(home, name), _plist(home, name, environment, cwd)) for name in (AGENT, RECOVER)]


def install_commands(home: Home) -> list[list[str]]:
    return [["launchctl", "bootstrap", _domain(), str(path(home, name))] for name in (AGENT, RECOVER)]


def uninstall_commands(home: Home) -> list[list[str]]:
    return [["launchctl", "bootout", f"{_domain()}/{_label(home, name)}"] for name in (AGENT, RECOVER)]


def start_commands(home: Home) -> list[list[str]]:
    return install_commands(home)


def stop_commands(home: Home) -> list[list[str]]:
    """launchd starts what is loaded: stopping for good means unloading, until the next login."""
    return uninstall_commands(home)


def path(home: Home, name: str = AGENT) -> Path:
    return Path.home() / "Library" / "LaunchAgents" / f"{_label(home, name)}.plist"


def _domain() -> str:
    return f"gui/{os.getuid()}"


def _label(home: Home, name: str) -> str:
    return f"dev.{home.label}.{name}"


def _plist(home: Home, name: str, environment: dict[str, str], cwd: Path) -> str:
    keys: dict[str, object] = {
        "Label": _label(home, name),
        "ProgramArguments": program(name),
        "EnvironmentVariables": environment,
        "WorkingDirectory": str(cwd),
        "RunAtLoad": True,
        "StandardOutPath": str(home.logs / f"{name}.log"),
        "StandardErrorPath": str(home.logs / f"{name}.log"),
        "Umask": 0o77,
        # Unset, launchd throttles CPU and I/O as for a background job.
        "ProcessType": "Interactive" if name == AGENT else "Standard",
    }
    if name == AGENT:
        # A clean exit is a stop that was asked for; anything else is brought back.
        keys |= {"KeepAlive": {"SuccessfulExit": False}, "ExitTimeOut": STOP_WITHIN_S, "ThrottleInterval": 10}
    else:
        keys |= {"StartInterval": RECOVER_EACH_S, "AbandonProcessGroup": True}
    return plistlib.dumps(keys, sort_keys=False).decode()
