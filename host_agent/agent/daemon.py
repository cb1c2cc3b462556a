"""Run one agent in this process until SIGTERM or SIGINT. `vestal agent` calls `serve`."""

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from host_agent.agent import running_settings
from host_agent.agent.agent import Agent
from host_agent.agent.handed_over import STOP_SIGNALS, HandedOver, accept_stop_signals, end_threads
from host_agent.agent.single_instance import SingleInstance
from host_agent.services.mlx.service import GATEWAY
from host_agent.watchdog.child import AgentRestarter
from vestal.best_effort import output
from vestal.best_effort.files import KeptFile
from vestal.config import Config, ensure_token
from vestal.config.environment import log_level
from vestal.web.descriptors import raise_descriptor_limit

SIGNAL_TURN_S = 0.02


class LogFormat(logging.Formatter):
    """The format of the agent's log lines. Their time is local and ends with the offset from UTC, as in
    `2026-10-25 02:30:00,123+0100`, because that hour comes twice when summer time ends.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Return the local time of a record, with milliseconds and the offset from UTC."""
        return super().formatTime(record, datefmt) + time.strftime("%z", time.localtime(record.created))


def serve(
    config: Config, gateway: tuple[str, ...] = GATEWAY, restarter: AgentRestarter = AgentRestarter.NOBODY
) -> int:
    """Run the agent until a signal stops it, and return exit code 0. `gateway` is the command that starts the
    gateway, and `restarter` says what restarts the agent if it dies.

    Before any service starts, raises AlreadyRunning if another agent serves this home, and PortBusy if
    another program uses the agent's port.
    """
    output.protect("agent")
    _log_to_stderr()
    raise_descriptor_limit()
    config.home.prepare()
    token = ensure_token(config.home)
    handed_over = HandedOver.from_environment()
    instance = SingleInstance(config.home, handed_over.lock)
    instance.acquire()
    handed_over.lock = instance.descriptor
    kept_files = (instance.pid_file, running_settings.write(config))
    try:
        asyncio.run(_run(config, token, gateway, restarter, kept_files, handed_over))
    finally:
        instance.release()
    return 0


async def _run(
    config: Config,
    token: str,
    gateway: tuple[str, ...],
    restarter: AgentRestarter,
    kept_files: Sequence[KeptFile],
    handed_over: HandedOver,
) -> None:
    """Run the agent until a signal stops it. If an upgrade replaces the agent, execute the new program in
    this process. If the new program cannot be executed, run the agent of the present program again; the
    services keep running meanwhile.

    `token` is the bearer token that clients of the agent must send. `gateway` is the command that starts the
    gateway, and `restarter` says what restarts the agent if it dies. The agent writes each of `kept_files`
    again if that file is deleted or changed. `handed_over` has the sockets, the lock and the report that an
    earlier agent in this process left for this one. If this agent is replaced, it stores in `handed_over`
    what it leaves for the next program.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(threads := ThreadPoolExecutor())
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    accept_stop_signals()
    agent = Agent(config, token, gateway, restarter, kept_files)
    while (request := await agent.run(stop, handed_over)) is not None:
        command = [request.executable, *sys.orig_argv[1:]]
        try:
            await end_threads(threads)
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
            await asyncio.sleep(SIGNAL_TURN_S)  # the loop handles a signal that has just come
            if stop.is_set():  # the signal came too late for this program, so the next one gets it
                signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            handed_over.execute(command, request.environment)
        except OSError as error:
            loop.set_default_executor(threads := ThreadPoolExecutor())
            accept_stop_signals()
            handed_over.report = {"state": "refused", "steps": [], "why": _why_not_executed(error)}


def _why_not_executed(error: OSError) -> str:
    return f"The agent could not be replaced, and goes on ({error.strerror or error})."


def _log_to_stderr() -> None:
    """Send log messages to stderr, which is logs/agent.log if the agent runs in the background."""
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormat())
    logging.basicConfig(level=log_level(os.environ), handlers=[handler])
    logging.getLogger("asyncio").setLevel(logging.WARNING)
