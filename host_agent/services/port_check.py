"""Before anything is started: are our ports free, or held by processes of ours?"""

from collections.abc import Iterator

from host_agent.errors import PortBusy
from host_agent.services.orchestrator import mode
from vestal.config import Config
from vestal.platform import ports
from vestal.platform.processes import vestal_processes


def check_ports(config: Config) -> None:
    """PortBusy names the first port of ours that somebody else holds."""
    for setting, held in strangers(config):
        raise PortBusy(f"Nothing was started: {ports.in_use_message(held, setting)}.")


def strangers(config: Config) -> Iterator[tuple[str, ports.PortHolder]]:
    """Each port of ours that somebody else holds: the setting that names another, and the holder."""
    wanted = {
        "VESTAL_AGENT_PORT": config.agent.port,
        "VESTAL_MLX_PORT": config.mlx.port,
        "VESTAL_ORCHESTRATOR_PORT": config.orchestrator.port,
    }
    if config.orchestrator.mode == "off":
        del wanted["VESTAL_ORCHESTRATOR_PORT"]
    for setting, port in wanted.items():
        held = ports.holder(port)
        if held and not _is_ours(config, held):
            yield setting, held


def _is_ours(config: Config, held: ports.PortHolder) -> bool:
    """A process of this home, or the proxy of a container that this home has published."""
    if held.pid and vestal_processes.server_module(held.pid, config.home.root, config.home.default_root):
        return True
    is_proxy = held.pid is None or "docker" in held.name
    return held.port == config.orchestrator.port and is_proxy and mode.has_containers(config)
