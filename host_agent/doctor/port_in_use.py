"""A port of ours is held by somebody else."""

from collections.abc import Iterator

from host_agent.cli.client import AgentClient
from host_agent.config import Config
from host_agent.doctor.finding import Finding
from host_agent.errors import PortBusy
from host_agent.port_check import check_ports


def look(config: Config) -> Iterator[Finding]:
    """The agent's, the MLX server's and the orchestrator's port."""
    try:
        check_ports(config)
    except PortBusy as error:
        sentence, _, remedy = str(error).removeprefix("Nothing was started: ").partition("; ")
        yield Finding("port_in_use", "fault", sentence, remedy.rstrip("."))
        return
    state = "and an agent answers" if AgentClient(config).answers() else "no agent answers"
    yield Finding("port_in_use", "ok", f"no stranger holds a port of ours, {state}")
