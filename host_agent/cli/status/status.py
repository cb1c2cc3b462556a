"""`vestal status`: show the services and their states, as a tree on a terminal or as a table in a pipe.

The exit code is 0 if all services are healthy, 1 if a service is not, and 2 if this home's agent does
not answer.
"""

import argparse
import json
import shutil
import sys
import time
import webbrowser
from typing import Any

from host_agent.agent import outdated
from host_agent.agent_client import AgentClient
from host_agent.cli.screen.styled import Line, can_show_live, print_lines, wrapped
from host_agent.cli.status import tree
from host_agent.cli.table import UNLIMITED_WIDTH, Column, print_table
from host_agent.errors import AgentUnreachable
from vestal.config import Config

HEALTHY, DEGRADED, DOWN = 0, 1, 2
COLUMNS = (
    Column("service"),
    Column("state"),
    Column("pid"),
    Column("up"),
    Column("restarts"),
    Column("detail", wraps=True),
)


def run(options: argparse.Namespace, config: Config) -> int:
    if options.watch and can_show_live():
        from host_agent.cli.status import watch

        return watch.run(config)
    client = AgentClient(config)
    if not client.own_agent_answers():
        return _report_down(options, client)
    try:
        if options.open:
            return _open_page(client)
        status = client.get("/status")
    except AgentUnreachable:
        return _report_down(options, client)
    if options.json:
        print(json.dumps(status, indent=2))
    elif sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        print_lines([*tree.lay_out(status, width, time.time()), *_older_code(config, width)])
    else:
        _print_table(status, time.time())
        print_lines(_older_code(config, UNLIMITED_WIDTH))
    return HEALTHY if status["healthy"] else DEGRADED


def _print_table(status: dict[str, Any], now: float) -> None:
    """Print a table with one line for each service, for `grep` and `awk`, and then warnings about this
    machine.
    """
    print(tree.verdict(status))
    rows = [_row(name, service, now) for name, service in status["services"].items()]
    print_table(COLUMNS, rows)
    print_lines(tree.host_lines(status, UNLIMITED_WIDTH))


def _row(name: str, service: dict[str, Any], now: float) -> tuple[str, ...]:
    return (
        name,
        service["state"],
        str(service["process_pid"] or ""),
        tree.format_uptime(service["uptime_s"]),
        str(service["restart_count"]),
        " ".join(text for text, _ in tree.words(service, now)),
    )


def _older_code(config: Config, width: int) -> list[Line]:
    """Return lines that name the parts of Vestal that run older code than is installed; none if all are
    current.
    """
    older = outdated.parts_with_older_code(config)
    if not older:
        return []
    names = " and ".join([", ".join(older[:-1]), older[-1]] if older[1:] else older)
    runs = "run" if older[1:] else "runs"
    sentence = f"{names} {runs} older code than is installed; run `make up`."
    return [[], *wrapped([(sentence, "yellow")], width)]


def _open_page(client: AgentClient) -> int:
    """Print a login link to the status page; the link works only once. If stdout is a terminal, open the link
    in a browser. Return the exit code.
    """
    url = client.post("/login-links")["url"]
    print(url)
    if sys.stdout.isatty():
        webbrowser.open(url)
    return HEALTHY


def _report_down(options: argparse.Namespace, client: AgentClient) -> int:
    silent = client.why_silent()
    if options.json:
        answer = {"services": {}, "healthy": False, "error": silent.sentence, "remedy": silent.remedy}
        print(json.dumps(answer | {"agent": silent.state}))
    else:
        print(f"Down: {silent}")
    return DOWN
