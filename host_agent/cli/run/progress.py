"""Show the progress of `vestal up`, one line for each step, and wait until the services are healthy."""

import shutil
import sys
import time
from pathlib import Path
from typing import Any

from host_agent.agent_client import AgentClient
from host_agent.cli.screen.styled import unguarded
from host_agent.cli.screen.waiting import ERASE_LINE
from host_agent.errors import HostAgentError
from host_agent.service_logs import log_path

POLL_S = 0.25
HEALTHY_STATES = ("ready", "busy", "absent")
NOT_WAITED_FOR = ("ollama", "docker")  # someone else may have to start them


class NotHealthy(HostAgentError):
    """A service did not become healthy in time. The message names the service, the reason and the log
    file.
    """

    code = "not_healthy"
    retryable = True


class Progress:
    """Prints how far the steps of a command are, as lines with the name of a step or service and a text. On a
    terminal, a text that is not final is overwritten by the next text with the same name. Elsewhere, each
    text gets a line of its own.
    """

    def __init__(self) -> None:
        self.redraws = sys.stdout.isatty()
        self._unfinished: str | None = None

    def show(self, name: str, text: str, *, final: bool = True) -> None:
        """Print a line. If it is not `final`, the next line with the same name replaces it on a terminal, and
        it is cut to the terminal's width, because only the last row of a longer text could be erased.
        """
        if self.redraws and self._unfinished is not None:
            unguarded(sys.stdout).write(ERASE_LINE if self._unfinished == name else "\n")
        redrawn = self.redraws and not final
        line = f"{name:<19} {text}"
        if redrawn:
            line = line[: shutil.get_terminal_size().columns - 1]
        print(line, end="" if redrawn else "\n", flush=True)
        self._unfinished = name if redrawn else None


def wait_until_healthy(client: AgentClient, progress: Progress, timeout_s: float, logs: Path) -> None:
    """Wait until all services that Vestal starts are healthy, and show each change of state.

    Raises NotHealthy if that takes more than `timeout_s` seconds, or at once if a service has failed. The
    exception's message names the log file of an unhealthy service, in the folder `logs`.
    """
    deadline = time.monotonic() + timeout_s
    shown: dict[str, str] = {}
    while True:
        services = client.get("/status")["services"]
        _show_changes(services, shown, progress)
        unhealthy = {name: service for name, service in services.items() if _is_awaited(name, service)}
        if not unhealthy:
            return
        failed = any(service["state"] == "failed" for service in unhealthy.values())
        if failed or time.monotonic() > deadline:
            raise NotHealthy(_sentence(unhealthy, logs))
        time.sleep(POLL_S)


def _is_awaited(name: str, service: dict[str, Any]) -> bool:
    return name not in NOT_WAITED_FOR and service["expected"] and service["state"] not in HEALTHY_STATES


def _show_changes(services: dict[str, dict[str, Any]], shown: dict[str, str], progress: Progress) -> None:
    """Show each service whose state differs from its state in `shown`, and update `shown`."""
    for name, service in services.items():
        if shown.get(name) != service["state"]:
            shown[name] = service["state"]
            detail = f"  {service['detail']}" if service["detail"] else ""
            progress.show(name, service["state"] + detail)


def _sentence(unhealthy: dict[str, dict[str, Any]], logs: Path) -> str:
    states = "; ".join(
        f"{name} is {service['state']}" + (f" ({service['detail']})" if service["detail"] else "")
        for name, service in unhealthy.items()
    )
    first = next(iter(unhealthy))
    return f"Not healthy: {states}; {log_path(logs, first)} and `vestal doctor` say more."
