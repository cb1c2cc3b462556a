"""Reads what launchd and systemd tell of the agent's unit: how often it started, how it ended. Pure."""

import re
from dataclasses import dataclass

_LAUNCHCTL = re.compile(r"^\t([a-z ]+?) = (.*)$", re.MULTILINE)  # one tab: of the service itself
_NUMBER = re.compile(r"-?\d+")
SYSTEMD_KEYS = "ActiveState,NRestarts,ExecMainStatus,MainPID"


@dataclass(frozen=True)
class UnitState:
    """`starts` counts them since the unit was loaded; `exit_code` is None where it has not ended yet."""

    running: bool
    starts: int
    exit_code: int | None = None


def launchctl_command(target: str) -> tuple[str, ...]:
    return ("/bin/launchctl", "print", target)


def systemctl_command(unit: str) -> tuple[str, ...]:
    return ("systemctl", "--user", "show", unit, f"--property={SYSTEMD_KEYS}")


def parse_launchctl(text: str) -> UnitState | None:
    """From `launchctl print gui/UID/LABEL`; None where it has no such service."""
    keys: dict[str, str] = {}
    for key, value in _LAUNCHCTL.findall(text):
        keys.setdefault(key, value.strip())
    if "state" not in keys:
        return None
    return UnitState(
        keys["state"] == "running", _number(keys.get("runs")) or 0, _number(keys.get("last exit code"))
    )


def parse_systemctl(text: str) -> UnitState | None:
    """From `systemctl show`; None for a unit that was never loaded."""
    keys = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    if "ActiveState" not in keys:
        return None
    active, restarts = keys["ActiveState"], _number(keys.get("NRestarts")) or 0
    ended = restarts > 0 or active == "failed"
    code = _number(keys.get("ExecMainStatus")) if ended else None
    return UnitState(active in ("active", "reloading"), restarts + 1, code)


def _number(text: str | None) -> int | None:
    """The number a value begins with: `78: EX_CONFIG` and `(never exited)` are both forms of launchd's."""
    found = _NUMBER.match(text or "")
    return int(found[0]) if found else None
