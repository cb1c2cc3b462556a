"""The agent's side of its watchdog: start it or adopt it, and end it before the agent ends."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

from host_agent.installed import digests
from host_agent.services import child_environment, terminate
from host_agent.services.find_process import find_supervised
from host_agent.watchdog import socket_store
from host_agent.watchdog.socket_store import SOCKET_NAME, StoreUnreachable
from vestal.config import Config, Home
from vestal.supervision import (
    UP,
    ChildSpec,
    Event,
    ProcessIdentity,
    RestartPolicy,
    Supervisor,
    read_pid_file,
)
from vestal.supervision.processes.identity import identify

NAME = "watchdog"
STOP_S = 5.0


class AgentRestarter(StrEnum):
    """What restarts the agent when it has died: launchd or systemd, the watchdog, or nothing."""

    SERVICE_MANAGER = "service_manager"
    WATCHDOG = "watchdog"
    NOBODY = "nobody"


def pid_file(home: Home) -> Path:
    """Return the path of the watchdog's PID file."""
    return home.run / "watchdog.json"


def running(home: Home) -> ProcessIdentity | None:
    """Return the watchdog of this home, or None. If its PID file was deleted, search the process table."""
    identity = read_pid_file(pid_file(home))
    if identity and identity.alive():
        return identity
    pid = find_supervised(pid_file(home))
    return identify(pid) if pid else None


async def stop_leftover(home: Home) -> bool:
    """End the watchdog of this home, so that it starts no agent; return False if there was none."""
    identity = running(home)
    return identity is not None and await terminate.terminate_identity(identity, STOP_S)


async def take_sockets_back(home: Home) -> list[socket.socket]:
    """Return the gateway's sockets that the watchdog of an earlier agent has kept; empty if no watchdog
    answers.

    A watchdog that does not answer is ended, because it might hold the sockets, so that nobody else could
    bind them.
    """
    if running(home) is None:
        return []
    try:
        return await asyncio.to_thread(socket_store.take_back, home.run / SOCKET_NAME)
    except StoreUnreachable:
        await stop_leftover(home)
        return []


class AgentWatchdog:
    """Starts and supervises the watchdog of this agent, if `restarter`, which says what restarts a dead
    agent, is WATCHDOG. Otherwise ends any watchdog that an earlier agent left running.

    `manager_name` is the service manager's name, such as launchd, for the text of `describe`. `on_event`
    receives the events of the watchdog's supervisor, such as the watchdog's start. This supervisor is not the
    one of the agent's other processes, because the watchdog must be started last and stopped first.
    """

    def __init__(
        self, config: Config, restarter: AgentRestarter, manager_name: str, on_event: Callable[[Event], None]
    ) -> None:
        self._config, self._manager_name = config, manager_name
        self._home = config.home
        self._kept: object = None
        self.restarter: str = restarter
        self._supervisor = Supervisor([_spec(config)], on_event=on_event, name="agent_watchdog")

    async def start(self) -> None:
        """Adopt or start the watchdog. If none is needed, end one that an earlier agent started."""
        if self.restarter is AgentRestarter.WATCHDOG:
            await self._supervisor.start()
        else:
            await stop_leftover(self._config.home)

    async def keep_sockets(self, sockets: Sequence[socket.socket]) -> None:
        """Pass these sockets to the watchdog, unless it has them. If that fails, a later call tries again."""
        pid = self.pid
        if pid is None:
            return
        kept = (pid, frozenset(each.getsockname() for each in sockets))
        if kept == self._kept:
            return
        with contextlib.suppress(StoreUnreachable):
            await asyncio.to_thread(socket_store.put, self._home.run / SOCKET_NAME, sockets)
            self._kept = kept

    @property
    def pid(self) -> int | None:
        """Return the PID of the watchdog that this agent supervises; None if none runs."""
        return self._supervisor.status()[NAME].process_pid

    async def replace(self, cause: str) -> None:
        """Restart the watchdog, for the reason `cause` (in words). The next call of `keep_sockets` passes the
        gateway's sockets to the restarted watchdog.
        """
        await self._supervisor.restart_child(NAME, cause, reset=True)

    async def detach(self) -> None:
        """Stop supervising the watchdog without ending it. The agent calls this before it replaces itself, by
        `execve` and so under the same PID, with another program, such as an upgraded agent. That program then
        adopts the watchdog.
        """
        await self._supervisor.detach()

    async def stop(self) -> None:
        """End the watchdog, so that it starts no other agent when this agent ends as requested."""
        await self._supervisor.stop()

    def describe(self) -> str:
        """Return in words what restarts the agent when it fails."""
        if self.restarter is AgentRestarter.SERVICE_MANAGER:
            return f"{self._manager_name} restarts it when it fails"
        if self.restarter is AgentRestarter.NOBODY:
            return "nothing restarts it when it fails, because it was started by hand"
        watchdog = self._supervisor.status()[NAME]
        if watchdog.state in UP:
            return f"its watchdog (PID {watchdog.process_pid}) restarts it when it fails"
        detail = f": {watchdog.detail}" if watchdog.detail else ""
        return f"nothing restarts it when it fails, because its watchdog is {watchdog.state}{detail}"


def _spec(config: Config) -> ChildSpec:
    home = config.home
    return ChildSpec(
        name=NAME,
        command=(sys.executable, "-m", "host_agent.watchdog", str(home.run), str(config.agent.port)),
        env={
            **child_environment.common(config),
            digests.DIGEST_VARIABLE: digests.digest(NAME, digests.all_settings(config)),  # for the next agent
        },
        log_path=home.logs / "watchdog.log",
        pid_file=pid_file(home),
        find=find_supervised,
        policy=RestartPolicy(stop_timeout_s=STOP_S),
    )
