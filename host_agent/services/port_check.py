"""Check, before anything is started, that no other program holds the ports of this home."""

from collections.abc import Iterator

from host_agent.errors import PortBusy
from host_agent.services.orchestrator import mode
from vestal.config import Config
from vestal.platform import ports
from vestal.platform.container_ports import listens_for_containers
from vestal.platform.processes import vestal_processes
from vestal.supervision import read_pid_file


def check_ports(config: Config) -> None:
    """Raise PortBusy if another program holds a port that `config` gives to the agent, the gateway or the
    orchestrator. The error's message names the program. A server of the same Vestal home, also one in a
    container, is not another program.
    """
    for setting, holder in foreign_holders(config):
        raise PortBusy(f"Nothing was started: {ports.in_use_message(holder, setting)}.")


def foreign_holders(config: Config) -> Iterator[tuple[str, ports.PortHolder]]:
    """Yield, for each port that another program holds, the setting that changes the port, and the holder."""
    wanted = {
        "VESTAL_AGENT_PORT": config.agent.port,
        "VESTAL_MLX_PORT": config.mlx.port,
        "VESTAL_ORCHESTRATOR_PORT": config.orchestrator.port,
    }
    if config.orchestrator.mode == "off":
        del wanted["VESTAL_ORCHESTRATOR_PORT"]
    for setting, port in wanted.items():
        holder = ports.holder(port)
        if holder and not _belongs_to_home(config, holder):
            yield setting, holder


def _named_pids(config: Config) -> set[int]:
    """Return the PIDs of the processes that still run and that a PID file in the Vestal home of `config`
    names.
    """
    identities = map(read_pid_file, config.home.run.glob("*.json"))
    return {identity.pid for identity in identities if identity is not None and identity.alive()}


def _belongs_to_home(config: Config, holder: ports.PortHolder) -> bool:
    """Return whether the program that holds the port is a server of this home (VESTAL_HOME), or listens on
    behalf of one of its containers.
    """
    if holder.pid in _named_pids(config):
        return True
    if holder.pid and vestal_processes.server_module(holder.pid, config.home.root, config.home.default_root):
        return True
    is_proxy = holder.pid is None or listens_for_containers(holder.name)
    return holder.port == config.orchestrator.port and is_proxy and mode.has_containers(config)
