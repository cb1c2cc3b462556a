"""Shows progress, a line for each step, and waits until the stack is healthy."""

import sys
import time
from pathlib import Path
from typing import Any

from host_agent.agent_client import AgentClient
from host_agent.errors import HostAgentError

LOOK_AGAIN_S = 0.25
WELL = ("ready", "busy", "absent")
NOT_OURS = ("ollama", "docker")  # told, not waited for: they may be another's to start
LOGS = {"mlx_engine": "engine.log"}


class NotHealthy(HostAgentError):
    code = "not_healthy"
    retryable = True


class Progress:
    """`name  what` lines. On a terminal, the line of a step that goes on is drawn anew."""

    def __init__(self) -> None:
        self.redraws = sys.stdout.isatty()
        self._open: str | None = None

    def say(self, name: str, what: str, *, steps: bool = False) -> None:
        """`steps`: more will be said of the same, in its place."""
        if self.redraws and self._open is not None:
            sys.stdout.write("\r\x1b[K" if self._open == name else "\n")
        print(f"{name:<20}{what}", end="" if steps and self.redraws else "\n", flush=True)
        self._open = name if steps and self.redraws else None


def wait_until_healthy(client: AgentClient, progress: Progress, timeout_s: float, logs: Path) -> None:
    """Until all that Vestal starts is well; NotHealthy names what is not, why, and its log."""
    deadline = time.monotonic() + timeout_s
    shown: dict[str, str] = {}
    while True:
        rows = client.get("/status")["services"]
        _show_changes(rows, shown, progress)
        missing = {name: row for name, row in rows.items() if _missing(name, row)}
        if not missing:
            return
        failed = any(row["state"] == "failed" for row in missing.values())
        if failed or time.monotonic() > deadline:
            raise NotHealthy(_sentence(missing, logs))
        time.sleep(LOOK_AGAIN_S)


def _missing(name: str, row: dict[str, Any]) -> bool:
    return name not in NOT_OURS and row["expected"] and row["state"] not in WELL


def _show_changes(rows: dict[str, dict[str, Any]], shown: dict[str, str], progress: Progress) -> None:
    for name, row in rows.items():
        if shown.get(name) != row["state"]:
            shown[name] = row["state"]
            progress.say(name, row["state"] + (f"  {row['detail']}" if row["detail"] else ""))


def _sentence(missing: dict[str, dict[str, Any]], logs: Path) -> str:
    told = "; ".join(
        f"{name} is {row['state']}" + (f" ({row['detail']})" if row["detail"] else "")
        for name, row in missing.items()
    )
    first = next(iter(missing))
    return f"Not healthy: {told}; {logs / LOGS.get(first, first + '.log')} and `vestal doctor` say more."
