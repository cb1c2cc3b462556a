"""A port of ours is held by somebody else: which process, whose, since when."""

from collections.abc import Iterator

from host_agent.agent_client import AgentClient
from host_agent.doctor.finding import Finding
from host_agent.services.port_check import strangers
from vestal.config import Config
from vestal.platform import ports

NAME = "port_in_use"


def look(config: Config) -> Iterator[Finding]:
    """The agent's, the MLX server's and the orchestrator's port."""
    free = True
    for setting, held in strangers(config):
        free = False
        sentence, _, remedy = ports.in_use_message(held, setting).partition("; ")
        yield Finding(NAME, "fault", sentence, remedy, held.command[:200])
    if free:
        state = "and an agent answers" if AgentClient(config).answers() else "no agent answers"
        yield Finding(NAME, "ok", f"no stranger holds a port of ours, {state}")
