"""The agent's side of its guard: start it or adopt it, and end it before the agent ends."""

import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from host_agent.services import child_environment, terminate
from host_agent.services.find_process import find_supervised
from vestal.config import Config, Home
from vestal.supervision import (
    UP,
    ChildSpec,
    Event,
    RestartPolicy,
    RestartType,
    Supervisor,
    read_pid_file,
)

NAME = "guard"
STOP_S = 5.0


class Keeper(StrEnum):
    """Who starts the agent again when it has died."""

    SERVICE_MANAGER = "service_manager"
    GUARD = "guard"
    NOBODY = "nobody"


def pid_file(home: Home) -> Path:
    """Return the path of the guard's PID file."""
    return home.run / "guard.json"


async def stop_leftover(home: Home) -> bool:
    """End the guard of this home, so that it starts no agent; return False where there was none."""
    identity = read_pid_file(pid_file(home))
    return identity is not None and await terminate.terminate_identity(identity, STOP_S)


class AgentGuard:
    """The guard of this agent, where `keeper` is GUARD; for another keeper, none may be left running.

    It has a supervisor of its own, because it must be the last that is started and the first that is stopped.
    """

    def __init__(
        self, config: Config, keeper: Keeper, manager_name: str, on_event: Callable[[Event], None]
    ) -> None:
        self._config, self._manager_name = config, manager_name
        self.keeper: str = keeper
        self._supervisor = Supervisor([_spec(config)], on_event=on_event, name="agent_guard")

    async def start(self) -> None:
        """Adopt or start the guard; without the need for one, end what an earlier agent has left."""
        if self.keeper is Keeper.GUARD:
            await self._supervisor.start()
        else:
            await stop_leftover(self._config.home)

    async def stop(self) -> None:
        """End the guard: the agent is about to end because somebody wants it to."""
        await self._supervisor.stop()

    def describe(self) -> str:
        """Return in words who keeps the agent running."""
        if self.keeper is Keeper.SERVICE_MANAGER:
            return f"{self._manager_name} restarts it when it fails"
        if self.keeper is Keeper.NOBODY:
            return "nothing restarts it when it fails, because it was started by hand"
        guard = self._supervisor.status()[NAME]
        if guard.state in UP:
            return f"its guard (PID {guard.process_pid}) restarts it when it fails"
        detail = f": {guard.detail}" if guard.detail else ""
        return f"nothing restarts it when it fails, because its guard is {guard.state}{detail}"


def _spec(config: Config) -> ChildSpec:
    home = config.home
    return ChildSpec(
        name=NAME,
        command=(sys.executable, "-m", "host_agent.guard", str(home.run), str(config.agent.port)),
        env=child_environment.common(config),
        log_path=home.logs / "guard.log",
        pid_file=pid_file(home),
        find=find_supervised,
        policy=RestartPolicy(stop_timeout_s=STOP_S),
        restart=RestartType.TRANSIENT,
    )
