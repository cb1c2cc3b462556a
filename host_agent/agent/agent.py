"""The host agent: build its components, start them, run until the agent is stopped or replaced, and stop them
in order.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aiohttp
import psutil

from host_agent.agent.background_loops import BackgroundLoops
from host_agent.agent.components import Components, build
from host_agent.agent.handed_over import HandedOver
from host_agent.history.store import newest_sample_at
from host_agent.journal import Journal
from host_agent.services import ORCHESTRATOR
from host_agent.services.docker.docker_api import DockerApi
from host_agent.services.mlx.service import GATEWAY
from host_agent.services.ollama import OllamaService
from host_agent.upgrade import leftovers
from host_agent.upgrade.request_file import UpgradeRequest
from host_agent.watchdog.child import AgentRestarter, take_sockets_back
from vestal.best_effort.files import KeptFile
from vestal.config import Config
from vestal.supervision import SupervisionError
from vestal.supervision.processes.identity import boot_id

log = logging.getLogger("vestal")

PASS_END_S = 5.0  # the longest that a replacement waits for a running recovery pass or request to end


class Agent:
    """Starts, supervises and stops every service of one Vestal home folder on this machine.

    `token` is the bearer token that clients of the agent must send. `gateway` is the command that starts the
    gateway. `restarter` says what restarts the agent if it dies. While the agent runs, it writes each of
    `kept_files` again if that file is deleted or changed.
    """

    def __init__(
        self,
        config: Config,
        token: str,
        gateway: tuple[str, ...] = GATEWAY,
        restarter: AgentRestarter = AgentRestarter.NOBODY,
        kept_files: Sequence[KeptFile] = (),
    ) -> None:
        self._config, self._token, self._gateway, self._restarter = config, token, gateway, restarter
        self._kept_files = kept_files

    async def run(self, stop: asyncio.Event, handed_over: HandedOver) -> UpgradeRequest | None:
        """Run until `stop` is set, then stop every child process in order and return None.

        If an upgrade asks for a new agent before `stop` is set, leave the children running and return the
        request, which names the program to execute. `handed_over` then has the sockets and the upgrade report
        for that program.
        """
        async with contextlib.AsyncExitStack() as stack:
            journal = Journal(self._config.home.journal_db)
            stack.callback(journal.close)
            last_alive_at = _last_alive_at(journal)
            session = await stack.enter_async_context(aiohttp.ClientSession(trust_env=False))
            docker = DockerApi()
            stack.push_async_callback(docker.close)
            if not handed_over.listening:  # the last agent may have died; its watchdog then has the sockets
                handed_over.listening = await take_sockets_back(self._config.home)
            components = await build(
                self._config,
                self._token,
                journal,
                session,
                docker,
                self._gateway,
                self._restarter,
                handed_over,
            )
            await components.listener.start()
            stack.push_async_callback(components.listener.stop)
            await components.watchdog.start()
            self._record_start(journal, components, last_alive_at)
            await components.supervisor.start()
            if not handed_over.report:  # an upgrade does this itself, and reports it
                await _stop_unwanted(self._config, components, journal)
            await _adopt_or_start_ollama(components.ollama, journal)
            loops = BackgroundLoops(self._config, self._token, journal, components, self._kept_files)
            loops.start()
            components.upgrades.go_on()
            if await _stop_comes_first(stop, components.upgrades.agent_is_to_be_replaced):
                await _stop(components, loops, journal)
                return None
            handed_over.listening = components.listener.duplicate_sockets()
            await _leave_children(components, loops, journal)
            handed_over.listening += components.mlx.sockets.held
            handed_over.report = components.upgrades.report
            return components.upgrades.request

    def _record_start(self, journal: Journal, components: Components, last_alive_at: float) -> None:
        decision = components.mode_decision
        fields: dict[str, Any] = {"mode": str(decision.mode), "port": self._config.agent.port}
        fields |= {"booted_at": round(psutil.boot_time(), 1), "boot_id": boot_id()}
        if last_alive_at:
            fields["last_alive_at"] = round(last_alive_at, 1)
        journal.record("agent", "agent_started", decision.why, **fields)


def _last_alive_at(journal: Journal) -> float:
    """Return the time (seconds since 1970) of the newest event or sample in the journal; 0 if it is empty.

    Samples count because an idle agent writes one every 10 s, but may write no event for hours.
    """
    events = [float(entry["ts"]) for entry in journal.newest(1)]
    return max([*events, newest_sample_at(journal)])


async def _stop_unwanted(config: Config, components: Components, journal: Journal) -> None:
    """Stop the services that an earlier agent left running and that this agent does not run, such as a native
    orchestrator if it runs in containers now. A failure is logged, not raised: the agent starts anyway.
    """
    try:
        for line in await leftovers.stop_unwanted(config, components.supervisor):
            journal.record(ORCHESTRATOR, "service_not_wanted", line)
    except Exception:  # such as a process that outlives SIGKILL, or another user's
        log.exception("What an earlier agent left running could not be stopped")


async def _adopt_or_start_ollama(ollama: OllamaService, journal: Journal) -> None:
    """Adopt the Ollama server that an earlier agent started, or start one.

    A failure is recorded in the journal, not raised: the agent starts anyway, and the next recovery pass
    tries again.
    """
    try:
        await ollama.adopt_or_start()
    except Exception as error:
        log.exception("Ollama could not be started or adopted")
        journal.record("ollama", "begin_failed", repr(error))


async def _stop_comes_first(stop: asyncio.Event, other: asyncio.Event) -> bool:
    """Wait until one of the events is set. Return True if `stop` is set, even if both are, else False."""
    waits = [asyncio.ensure_future(each.wait()) for each in (stop, other)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return stop.is_set()


async def _leave_children(components: Components, loops: BackgroundLoops, journal: Journal) -> None:
    """Stop the agent's own work, and leave every child process running for the program that replaces the
    agent.

    A recovery pass, and the starts, stops and restarts of services that a person has requested, have
    PASS_END_S seconds in all to end; then they are canceled.
    """
    control = components.listener_context.service_control
    journal.record("agent", "agent_replacing")
    await loops.stop()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PASS_END_S):
            await components.passes.wait()
            await control.wait()
    await components.passes.close()
    await control.close()
    await components.upgrades.stop()
    journal.disconnect_followers()
    await components.listener.stop_accepting()
    await components.watchdog.detach()
    await components.ollama.controller.detach()
    await components.supervisor.detach()


async def _stop(components: Components, loops: BackgroundLoops, journal: Journal) -> None:
    """Stop all work of the agent and all child processes.

    First, end the watchdog and all work that could start a child process again: an upgrade, the background
    loops, the recovery pass, and what a person has requested, such as the restart of a service. Then stop the
    child processes. The agent's HTTP server still answers meanwhile, but starts nothing any more.
    """
    journal.record("agent", "agent_stopping")
    await _stop_supervised(components.watchdog.stop, journal)
    await components.upgrades.stop()
    await loops.stop()
    await components.passes.close()
    await components.listener_context.service_control.close()
    journal.disconnect_followers()
    for stop in (components.ollama.controller.stop, components.supervisor.stop):
        await _stop_supervised(stop, journal)
    journal.record("agent", "agent_stopped")


async def _stop_supervised(stop: Callable[[], Awaitable[None]], journal: Journal) -> None:
    """Call `stop`. If it raises SupervisionError, only record the error, so that the caller stops the other
    processes too.
    """
    try:
        await stop()
    except SupervisionError as error:
        journal.record("agent", "stop_incomplete", str(error))
