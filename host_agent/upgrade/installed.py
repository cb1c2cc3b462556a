"""Compute the digest of code and settings of each installed part of Vestal, and read the digest with which a
running process was started.
"""

import psutil

from host_agent.installed import digests
from host_agent.services.mlx import service as mlx_service
from host_agent.services.orchestrator import native
from vestal.config import Config

AGENT, WATCHDOG = "agent", "watchdog"


def of_agent(config: Config) -> str:
    """Return the digest of the agent's code with all settings, since the agent passes settings on to its
    children.
    """
    return digests.digest(AGENT, digests.all_settings(config))


def of_parts(config: Config) -> dict[str, str]:
    """Return the digest of code and settings of each part, by name: of the agent, and of each process of
    Vestal that it starts.
    """
    native_settings = native.settings_text(config)
    return {
        AGENT: of_agent(config),
        WATCHDOG: digests.digest(WATCHDOG, digests.all_settings(config)),
        "mlx_server": digests.digest("mlx_server", mlx_service.settings_text(config)),
        "orchestrator": digests.digest("orchestrator", native_settings),
        "nightly": digests.digest("nightly", native_settings),
    }


def started_with(pid: int) -> str | None:
    """Return the digest of code and settings with which the process `pid` was started. An environment
    variable of the process has it; None if the variable is missing or cannot be read.
    """
    try:
        return psutil.Process(pid).environ().get(digests.DIGEST_VARIABLE)
    except psutil.Error:
        return None
