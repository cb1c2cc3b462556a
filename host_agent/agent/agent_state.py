"""Find out why an agent does not answer: it does not run, SIGSTOP has stopped it, it listens on another port,
it hangs, or its token cannot be read.

Every command that reaches no agent prints the reason and the remedy.
"""

from dataclasses import dataclass
from enum import StrEnum

from host_agent.agent import running_settings, single_instance
from host_agent.watchdog import child
from vestal.config import Config, ConfigError, read_token
from vestal.platform.processes import process_lookup
from vestal.supervision import ProcessIdentity


class AgentState(StrEnum):
    """The reason why the agent of a home does not answer. SILENT means that the agent's process runs but does
    not answer on the configured port, perhaps because it hangs. NO_TOKEN means that the agent runs, but that
    no request can be sent to it, because its token cannot be read. PORT_TAKEN means that the agent does not
    run, and that the agent of another home answers on the configured port.
    """

    NOT_RUNNING = "not_running"
    SUSPENDED = "suspended"
    ON_ANOTHER_PORT = "on_another_port"
    SILENT = "silent"
    NO_TOKEN = "no_token"
    PORT_TAKEN = "port_taken"


@dataclass(frozen=True)
class SilentAgent:
    """An agent that does not answer. `sentence` says why it does not, `remedy` what a person can do.

    `identity` is the agent's process, or None if no agent runs.
    """

    state: AgentState
    sentence: str
    remedy: str
    identity: ProcessIdentity | None = None

    def __str__(self) -> str:
        return f"{self.sentence} {self.remedy}"


def of_silent_agent(config: Config) -> SilentAgent:
    """Return why no agent of this home answers. Only files and the process table are read; no request is
    sent.
    """
    identity = single_instance.running(config.home)
    if identity is None:
        sentence = f"No agent runs for {config.home.root}."
        if watchdog := child.running(config.home):
            remedy = (
                f"Its watchdog (PID {watchdog.pid}) starts it again; `vestal recover --once` does so now."
            )
        else:
            remedy = "`vestal up` starts everything."
        return SilentAgent(AgentState.NOT_RUNNING, sentence, remedy)
    agent = f"The agent (PID {identity.pid})"
    if process_lookup.is_suspended(identity.pid):
        sentence = f"{agent} is stopped (SIGSTOP): it runs no further, and its services are not watched."
        remedy = (
            f"`vestal recover --once` or `kill -CONT {identity.pid}` continues it, `vestal down` ends it."
        )
        return SilentAgent(AgentState.SUSPENDED, sentence, remedy, identity)
    if port := listens_elsewhere(config):
        sentence = f"{agent} listens on port {port}, and the configuration says {config.agent.port}."
        remedy = "`vestal up` restarts it with the new settings."
        return SilentAgent(AgentState.ON_ANOTHER_PORT, sentence, remedy, identity)
    try:
        read_token(config.home)
    except ConfigError as error:
        return SilentAgent(
            AgentState.NO_TOKEN, f"{agent} runs, but its token cannot be read.", str(error), identity
        )
    sentence = f"{agent} runs and does not answer on port {config.agent.port}."
    remedy = "`vestal recover --once` replaces it if it hangs."
    return SilentAgent(AgentState.SILENT, sentence, remedy, identity)


def of_port_taken(config: Config) -> SilentAgent:
    """Return the reason for the case that no agent of this home runs, and that the agent of another home
    answers on the configured port.
    """
    port = config.agent.port
    sentence = f"No agent runs for {config.home.root}, and the agent of another home holds port {port}."
    return SilentAgent(
        AgentState.PORT_TAKEN, sentence, "Set VESTAL_AGENT_PORT to a free port, then `vestal up`."
    )


def listens_elsewhere(config: Config) -> int | None:
    """Return the port that the running agent was started with if it differs from the configured port, else
    None.
    """
    started_with = running_settings.read(config.home)
    if started_with is None or started_with.port == config.agent.port:
        return None
    return started_with.port
