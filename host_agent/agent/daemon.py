"""Run one agent in this process until SIGTERM or SIGINT; `vestal agent` calls it."""

import asyncio
import logging
import os
import signal
from collections.abc import Sequence

from host_agent.agent import running_settings
from host_agent.agent.agent import Agent
from host_agent.agent.single_instance import SingleInstance
from host_agent.services.mlx.service import GATEWAY
from host_agent.watchdog.child import AgentRestarter
from vestal.best_effort import output
from vestal.best_effort.files import KeptFile
from vestal.config import Config, ensure_token
from vestal.web.descriptors import raise_descriptor_limit


def serve(
    config: Config, gateway: tuple[str, ...] = GATEWAY, restarter: AgentRestarter = AgentRestarter.NOBODY
) -> int:
    """Run the agent until a signal stops it, and return exit code 0. `restarter` restarts it when it fails.

    Raises AlreadyRunning or PortBusy before any service is started.
    """
    output.protect("agent")
    _log_to_stderr()
    raise_descriptor_limit()
    config.home.prepare()
    token = ensure_token(config.home)
    instance = SingleInstance(config.home)
    instance.acquire()
    kept_files = (instance.pid_file, running_settings.write(config))
    try:
        asyncio.run(_run(config, token, gateway, restarter, kept_files))
    finally:
        instance.release()
    return 0


async def _run(
    config: Config,
    token: str,
    gateway: tuple[str, ...],
    restarter: AgentRestarter,
    kept_files: Sequence[KeptFile],
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await Agent(config, token, gateway, restarter, kept_files).run(stop)


def _log_to_stderr() -> None:
    """Log to stderr, which is the terminal in the foreground and logs/agent.log in the background."""
    line_format = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=os.environ.get("VESTAL_LOG_LEVEL", "INFO"), format=line_format)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
