"""systemd's user units and commands, as in systemd.service(5) and systemd.timer(5)."""

import os
from pathlib import Path

from host_agent.config import Home
from host_agent.host.unit import AGENT, RECOVER, RECOVER_EACH_S, STOP_WITHIN_S, Unit, program

SYSTEMCTL = ("systemctl", "--user")


def units(home: Home, environment: dict[str, str], cwd: Path) -> list[Unit]:
    agent, recover = _services(home, environment, cwd)
    return [
        Unit(path(home), agent),
        Unit(_folder() / f"{home.label}-recover.service", recover),
        Unit(_folder() / f"{home.label}-recover.timer", _timer(home)),
    ]


def install_commands(home: Home) -> list[list[str]]:
    return [[*SYSTEMCTL, "daemon-reload"], [*SYSTEMCTL, "enable", "--now", *_wanted(home)]]


def uninstall_commands(home: Home) -> list[list[str]]:
    return [[*SYSTEMCTL, "disable", "--now", *_wanted(home)]]


def start_commands(home: Home) -> list[list[str]]:
    return [[*SYSTEMCTL, "start", *_wanted(home)]]


def stop_commands(home: Home) -> list[list[str]]:
    return [[*SYSTEMCTL, "stop", *_wanted(home)[::-1]]]


def path(home: Home) -> Path:
    return _folder() / f"{home.label}-agent.service"


def _wanted(home: Home) -> list[str]:
    return [f"{home.label}-agent.service", f"{home.label}-recover.timer"]


def _folder() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def _services(home: Home, environment: dict[str, str], cwd: Path) -> tuple[str, str]:
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


def _timer(home: Home) -> str:
    return (
        f"[Unit]\nDescription=Vestal's recovery pass at boot and every {RECOVER_EACH_S} s\n\n"
        f"[Timer]\nOnBootSec=30\nOnUnitActiveSec={RECOVER_EACH_S}\nUnit={home.label}-recover.service\n\n"
        "[Install]\nWantedBy=timers.target\n"
    )


def _words(name: str) -> str:
    return " ".join(f'"{_escaped(word)}"' for word in program(name))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
