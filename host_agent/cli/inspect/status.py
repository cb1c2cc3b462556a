"""`vestal status`: the table of services. Exit code 0 all healthy, 1 degraded, 2 down."""

import argparse
import json
import sys
import webbrowser
from typing import Any

from host_agent.agent_client import AgentClient
from host_agent.errors import AgentUnreachable
from vestal.config import Config

HEALTHY, DEGRADED, DOWN = 0, 1, 2
GOOD, POOR = ("ready", "busy"), ("starting", "stopping", "backoff", "degraded")


def run(options: argparse.Namespace, config: Config) -> int:
    client = AgentClient(config)
    if not client.answers():
        return _down(options, config)
    try:
        if options.open:
            return _open(client)
        status = client.get("/status")
    except AgentUnreachable:
        return _down(options, config)
    if options.json:
        print(json.dumps(status, indent=2))
    else:
        show(status)
    return HEALTHY if status["healthy"] else DEGRADED


def show(status: dict[str, Any]) -> None:
    """The table, in color on a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("service", "state", "pid", "up", "restarts", "detail"):
        table.add_column(title, no_wrap=title != "detail", overflow="fold")
    for name, row in status["services"].items():
        state = Text(row["state"], style=_colour(row))
        pid = str(row["process_pid"] or "")
        table.add_row(name, state, pid, uptime(row["uptime_s"]), str(row["restart_count"]), row["detail"])
    # Piped, the whole text is wanted, whatever the width of a terminal that is not there.
    width = None if sys.stdout.isatty() else 200
    console = Console(highlight=False, width=width)
    console.print(table)
    if warning := status["host"].get("warning"):
        console.print(Text(f"memory: {warning}", style="red"))


def uptime(seconds: float) -> str:
    """`3 d`, `2 h`, `5 min`, `12 s`; nothing for what does not run."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s" if seconds > 0 else ""


def _colour(row: dict[str, Any]) -> str:
    if row["state"] in GOOD:
        return "green"
    if row["state"] == "absent" or not row.get("expected", True):
        return "dim"
    return "yellow" if row["state"] in POOR else "red"


def _open(client: AgentClient) -> int:
    url = client.post("/login-links")["url"]
    print(url)
    if sys.stdout.isatty():
        webbrowser.open(url)
    return 0


def _down(options: argparse.Namespace, config: Config) -> int:
    if options.json:
        print(json.dumps({"services": {}, "healthy": False, "error": "no agent answers"}))
    else:
        print(f"Down: no agent answers on port {config.agent.port}. `vestal up` starts everything.")
    return DOWN
