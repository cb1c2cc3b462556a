"""Diagnose which ports of Vestal another program uses: the process, its user, and since when."""

from collections.abc import Iterator

from host_agent.agent_client import AgentClient
from host_agent.doctor.finding import Diagnosis, Finding
from host_agent.sentences import as_sentence
from host_agent.services.port_check import foreign_holders
from vestal.config import Config
from vestal.platform import ports

NAME = "port_in_use"


def diagnose(config: Config) -> Iterator[Finding]:
    """Yield a fault for each port of the host agent, the MLX server or the orchestrator that another program
    uses, or one finding `ok` if there is none.
    """
    found = [_fault(setting, holder) for setting, holder in foreign_holders(config)]
    yield from found or [_ok(config)]


def _ok(config: Config) -> Finding:
    agent = "and an agent answers" if AgentClient(config).answers() else "and no agent answers"
    return Finding(NAME, "ok", f"No other program holds one of Vestal's ports, {agent}.")


def _fault(setting: str, holder: ports.PortHolder) -> Finding:
    culprit, _, remedy = ports.in_use_message(holder, setting).partition("; ")
    return Finding(NAME, "fault", as_sentence(culprit), as_sentence(remedy), holder.command[:200])


DIAGNOSIS = Diagnosis(NAME, diagnose)
