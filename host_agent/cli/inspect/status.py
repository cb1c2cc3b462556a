"""`vestal status`: show each service and its state.

The exit code is 0 if all services are healthy, 1 if one is not, and 2 if no agent answers.
"""

import argparse
import json
import sys
import webbrowser
from typing import Any

from host_agent.agent import agent_state, outdated
from host_agent.agent_client import AgentClient
from host_agent.cli.table import Column, print_table
from host_agent.errors import AgentUnreachable
from vestal.config import Config

HEALTHY, DEGRADED, DOWN = 0, 1, 2
HEALTHY_STATES = ("ready", "busy")
CHANGING_STATES = ("starting", "stopping", "backoff", "degraded")
COLUMNS = (
    Column("service"),
    Column("state"),
    Column("pid"),
    Column("up"),
    Column("restarts"),
    Column("detail", wraps=True),
)


def run(options: argparse.Namespace, config: Config) -> int:
    client = AgentClient(config)
    if not client.answers():
        return _report_down(options, config)
    try:
        if options.open:
            return _open_page(client)
        status = client.get("/status")
    except AgentUnreachable:
        return _report_down(options, config)
    if options.json:
        print(json.dumps(status, indent=2))
    else:
        show(status)
        _show_older_code(config)
    return HEALTHY if status["healthy"] else DEGRADED


def show(status: dict[str, Any]) -> None:
    """Print the services, and the warnings about this machine's memory and disk if there are any."""
    print_table(COLUMNS, [_row(name, service) for name, service in status["services"].items()])
    if warning := status["host"].get("warning"):
        print_table([Column(wraps=True)], [[(f"memory: {warning}", "red")]])
    disk = status["host"].get("disk", {})
    for name, text in (("disk", disk.get("message")), ("journal", disk.get("journal"))):
        if text:
            print_table([Column(wraps=True)], [[(f"{name}: {text}", "yellow")]])


def _show_older_code(config: Config) -> None:
    """Name the services that run older code than is installed."""
    if older := outdated.parts_with_older_code(config):
        names = " and ".join([", ".join(older[:-1]), older[-1]] if older[1:] else older)
        runs = "run" if older[1:] else "runs"
        sentence = f"{names} {runs} older code than is installed; run `make up`."
        print_table([Column(wraps=True)], [[(sentence, "yellow")]])


def format_uptime(seconds: float) -> str:
    """Return `3 d`, `2 h`, `5 min` or `12 s`; an empty string for a service that does not run."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s" if seconds > 0 else ""


def _row(name: str, service: dict[str, Any]) -> tuple[str | tuple[str, str], ...]:
    return (
        name,
        (service["state"], _color(service)),
        str(service["process_pid"] or ""),
        format_uptime(service["uptime_s"]),
        str(service["restart_count"]),
        service["detail"],
    )


def _color(service: dict[str, Any]) -> str:
    if service["state"] in HEALTHY_STATES:
        return "green"
    if service["state"] == "absent" or not service.get("expected", True):
        return "dim"
    return "yellow" if service["state"] in CHANGING_STATES else "red"


def _open_page(client: AgentClient) -> int:
    """Print a login link that works once, and open it in a browser if the output is a terminal."""
    url = client.post("/login-links")["url"]
    print(url)
    if sys.stdout.isatty():
        webbrowser.open(url)
    return HEALTHY


def _report_down(options: argparse.Namespace, config: Config) -> int:
    silent = agent_state.of_silent_agent(config)
    if options.json:
        answer = {"services": {}, "healthy": False, "error": silent.sentence, "remedy": silent.remedy}
        print(json.dumps(answer | {"agent": silent.state}))
    else:
        print(f"Down: {silent}")
    return DOWN
