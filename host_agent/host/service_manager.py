"""The user's service manager: launchd on macOS, systemd on Linux. Two units for each home:
the agent, kept alive; and a recovery pass at boot and every 300 s, which also starts a dead agent (R4.3).

Secrets are in no unit: the token is in its own file.
"""

import os
import plistlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from host_agent.config import Home

RECOVER_EACH_S = 300
STOP_WITHIN_S = 120  # longer than the ordered stop: drain, six stages, orchestrators
COMMAND_WITHIN_S = 60
AGENT, RECOVER = "agent", "recover"


@dataclass(frozen=True)
class Unit:
    """A file of the service manager's."""

    path: Path
    text: str


def is_mac() -> bool:
    return sys.platform == "darwin"


def units(home: Home, environment: dict[str, str], cwd: Path, mac: bool | None = None) -> list[Unit]:
    """What an installation writes. `environment` has what the agent must be told, PATH included."""
    if is_mac() if mac is None else mac:
        return [
            Unit(_plist_path(home, AGENT), _plist(home, AGENT, environment, cwd)),
            Unit(_plist_path(home, RECOVER), _plist(home, RECOVER, environment, cwd)),
        ]
    agent, recover = _systemd_services(home, environment, cwd)
    folder = _systemd_folder()
    return [
        Unit(folder / f"{home.label}-agent.service", agent),
        Unit(folder / f"{home.label}-recover.service", recover),
        Unit(folder / f"{home.label}-recover.timer", _systemd_timer(home)),
    ]


def commands(home: Home, install: bool, mac: bool | None = None) -> list[list[str]]:
    """What is run after the files are written, or before they are removed."""
    if is_mac() if mac is None else mac:
        domain = f"gui/{os.getuid()}"
        names = (AGENT, RECOVER)
        if install:
            return [["launchctl", "bootstrap", domain, str(_plist_path(home, name))] for name in names]
        return [["launchctl", "bootout", f"{domain}/{_label(home, name)}"] for name in names]
    systemctl = ["systemctl", "--user"]
    wanted = [f"{home.label}-agent.service", f"{home.label}-recover.timer"]
    if install:
        return [[*systemctl, "daemon-reload"], [*systemctl, "enable", "--now", *wanted]]
    return [[*systemctl, "disable", "--now", *wanted]]


def is_installed(home: Home) -> bool:
    if is_mac():
        return _plist_path(home, AGENT).exists()
    return (_systemd_folder() / f"{home.label}-agent.service").exists()


def stop(home: Home) -> None:
    """Until the next login; the files stay."""
    if is_mac():
        chosen = commands(home, install=False)
    else:
        names = [f"{home.label}-recover.timer", f"{home.label}-agent.service"]
        chosen = [["systemctl", "--user", "stop", *names]]
    for command in chosen:
        run(command)


def start(home: Home) -> None:
    """After a `stop`, or where the manager has let go of it."""
    if is_mac():
        chosen = commands(home, install=True)
    else:
        names = [f"{home.label}-agent.service", f"{home.label}-recover.timer"]
        chosen = [["systemctl", "--user", "start", *names]]
    for command in chosen:
        run(command)


def run(command: list[str]) -> str:
    """Run a command of the manager's; what went wrong, or nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_WITHIN_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"`{' '.join(command)}`: {error}"
    return "" if done.returncode == 0 else f"`{' '.join(command)}`: {done.stderr.strip() or done.returncode}"


def _program(name: str) -> list[str]:
    arguments = ["agent"] if name == AGENT else ["recover", "--once"]
    return [sys.executable, "-m", "host_agent.cli.main", *arguments]


def _label(home: Home, name: str) -> str:
    return f"dev.{home.label}.{name}"


def _plist_path(home: Home, name: str) -> Path:
    return Path.home() / "Library" / "LaunchAgents" / f"{_label(home, name)}.plist"


def _plist(home: Home, name: str, environment: dict[str, str], cwd: Path) -> str:
    keys: dict[str, object] = {
        "Label": _label(home, name),
        "ProgramArguments": _program(name),
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


def _systemd_folder() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def _systemd_services(home: Home, environment: dict[str, str], cwd: Path) -> tuple[str, str]:
    told = "".join(f'Environment="{name}={_escaped(value)}"\n' for name, value in environment.items())
    where = f"WorkingDirectory={cwd}\n{told}"
    agent = (
        f"[Unit]\nDescription=Vestal's host agent ({home.root})\n\n"
        f"[Service]\nExecStart={_words(AGENT)}\n{where}Restart=on-failure\nRestartSec=10\n"
        # The children outlive an agent that was killed: the next one adopts them.
        f"KillMode=process\nTimeoutStopSec={STOP_WITHIN_S}\nSuccessExitStatus=75\nUMask=0077\n"
        f"StandardOutput=append:{home.logs / 'agent.log'}\nStandardError=inherit\n\n"
        "[Install]\nWantedBy=default.target\n"
    )
    recover = (
        f"[Unit]\nDescription=Vestal's recovery pass ({home.root})\n\n"
        f"[Service]\nType=oneshot\nExecStart={_words(RECOVER)}\n{where}KillMode=process\nUMask=0077\n"
        "SuccessExitStatus=1\n"
    )
    return agent, recover


def _systemd_timer(home: Home) -> str:
    return (
        f"[Unit]\nDescription=Vestal's recovery pass at boot and every {RECOVER_EACH_S} s\n\n"
        f"[Timer]\nOnBootSec=30\nOnUnitActiveSec={RECOVER_EACH_S}\nUnit={home.label}-recover.service\n\n"
        "[Install]\nWantedBy=timers.target\n"
    )


def _words(name: str) -> str:
    return " ".join(f'"{_escaped(word)}"' for word in _program(name))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
