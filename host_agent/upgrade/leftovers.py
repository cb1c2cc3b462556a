"""Stop the services that an earlier agent ran and that this agent does not run: the settings have changed, or
the orchestrator runs in containers now.
"""

from host_agent.services import IN_CONTAINERS, OLLAMA, terminate
from vestal.config import Config
from vestal.supervision import Supervisor, read_pid_file
from vestal.supervision.processes.process_group import reap


async def stop_unwanted(config: Config, supervisor: Supervisor) -> list[str]:
    """Stop the native processes of the services `orchestrator` and `nightly`, unless they are children of
    `supervisor`, and the agent's Ollama server if the settings switch Ollama off.

    Return a line about each process that was stopped.
    """
    names = [name for name in IN_CONTAINERS if name not in supervisor.status()]
    if config.ollama.manage == "off":
        names.append(OLLAMA)
    lines = []
    for name in names:
        identity = read_pid_file(config.home.run / f"{name}.json")
        if identity is not None and await terminate.terminate_identity(identity, config.supervision.stop_s):
            reap(identity)
            lines.append(f"{name} (PID {identity.pid}) is no longer wanted here; it was stopped")
    return lines
