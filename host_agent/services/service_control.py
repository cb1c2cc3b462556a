"""Start, stop or restart one service because a person asks for it (POST /services/{name}/{action})."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from host_agent.errors import HostAgentError, NotPossible, UnknownService
from host_agent.journal import Journal
from host_agent.services import (
    AGENT,
    DOCKER,
    IN_CONTAINERS,
    MLX_ENGINE,
    MLX_SERVER,
    NAMES,
    OLLAMA,
)
from host_agent.services.docker.containers import Containers
from host_agent.services.mlx.service import MlxService
from host_agent.services.ollama import OllamaService
from host_agent.services.orchestrator.mode import Mode, ModeDecision
from host_agent.services.retry_advice import GIVEN_UP
from vestal.platform.processes import process_lookup
from vestal.supervision import DOWN, SupervisionError, Supervisor
from vestal.web.http_error import HttpError

log = logging.getLogger("vestal")

BY_HAND = "a person"
AGAIN_AFTER_S = 5.0  # an agent that is replaced answers again within this time
REPLACE_GATEWAY = {(MLX_SERVER, "restart"), (MLX_ENGINE, "start")}  # requests that start a new gateway
NOT_CONTROLLED_HERE = {
    AGENT: "The agent is started and stopped with `vestal up` and `vestal down`.",
    DOCKER: "Vestal only watches the Docker engine: start or stop it as you installed it.",
}


class ServiceControl:
    """Starts, stops and restarts services in the background. The journal and the status report show the
    result. `decision` says where the orchestrator and the nightly worker run (in containers, as the agent's
    children, or nowhere), and so determines how they are started and stopped.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        containers: Containers,
        mlx: MlxService,
        ollama: OllamaService,
        decision: ModeDecision,
        journal: Journal,
    ) -> None:
        self._supervisor, self._containers, self._mlx = supervisor, containers, mlx
        self._ollama, self._decision, self._journal = ollama, decision, journal
        self._tasks: set[asyncio.Task[None]] = set()
        self._gateway_replacements: set[asyncio.Task[None]] = set()
        self._closed = False

    def request(self, service: str, action: str) -> None:
        """Begin to `start`, `stop` or `restart` a service.

        Raises UnknownService if there is no such service, NotPossible if this service does not allow the
        action, or HttpError with status 503 after `close`. A later failure is recorded in the journal.
        """
        if self._closed:
            raise agent_stops()
        self._refuse_impossible(service, action)
        self._journal.record(service, f"{action}_requested", "by hand")
        work = partial(self._carry_out, service, action)
        task = self._begin(self._record_failure(service, action, work))
        if (service, action) in REPLACE_GATEWAY:
            self._gateway_replacements.add(task)
            task.add_done_callback(self._gateway_replacements.discard)

    @property
    def is_replacing_gateway(self) -> bool:
        """Return whether the gateway is being replaced by request. Until that is done, the old gateway may
        still answer, and report an engine that it gave up.
        """
        return bool(self._gateway_replacements)

    async def start_all(self) -> None:
        """Start all services that were stopped by hand or given up, for `vestal up` and `vestal recover
        --reset`. If one cannot be started, its failure is recorded in the journal, and the others are started
        all the same. Raises HttpError with status 503 after `close`.
        """
        if self._closed:
            raise agent_stops()
        starting = self._begin(self._start_all())
        try:
            await starting
        except asyncio.CancelledError:
            if self._closed and starting.cancelled():
                raise agent_stops() from None
            raise

    async def _start_all(self) -> None:
        if self._decision.mode is Mode.DOCKER:
            for name in IN_CONTAINERS:
                self._containers.clear_manual_stop(name)
        children = (MLX_SERVER, *IN_CONTAINERS) if self._decision.mode is Mode.NATIVE else (MLX_SERVER,)
        status = self._supervisor.status()
        for name in (name for name in children if status[name].state in DOWN):
            start = partial(self._supervisor.start_child, name, "asked for by hand", reset=True)
            await self._record_failure(name, "start", start)
        if status[MLX_SERVER].state not in DOWN:
            await self._record_failure(MLX_ENGINE, "start", self._start_engine_given_up)
        await self._record_failure(OLLAMA, "start", self._ollama.start_again)

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` as a task that `close` cancels."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def wait(self) -> None:
        """Wait until everything that was requested has been done or has failed."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Refuse further requests, and cancel those that are under way, because the agent stops."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _start_engine_given_up(self) -> None:
        """Request a restart of the gateway if its engine was given up, because only a new gateway starts
        it.
        """
        engine = await self._mlx.engine_status(fresh=True)
        if engine is not None and engine.state in GIVEN_UP:
            self.request(MLX_SERVER, "restart")

    def _refuse_impossible(self, service: str, action: str) -> None:
        if service not in NAMES:
            raise UnknownService(f"There is no service {service!r}; there are: {', '.join(NAMES)}.")
        if service in NOT_CONTROLLED_HERE:
            raise NotPossible(NOT_CONTROLLED_HERE[service])
        if service == OLLAMA and (refusal := self._ollama.refusal(action)):
            raise NotPossible(refusal)
        if service == MLX_ENGINE and action == "stop":
            raise NotPossible(f"The engine stops with its gateway: stop {MLX_SERVER} instead.")
        if service in IN_CONTAINERS and self._decision.mode is Mode.OFF:
            raise NotPossible("The orchestrator is switched off (orchestrator.mode).")

    async def _record_failure(self, service: str, action: str, work: Callable[[], Awaitable[None]]) -> None:
        """Await `work()`, which is to `start`, `stop` or `restart` the service, as `action` says. If it
        fails, record that in the journal and do not raise, so that other services get their turn.
        """
        try:
            await work()
        except Exception as error:
            is_bug = not isinstance(error, HostAgentError | SupervisionError)
            log.warning("%s of %s failed", action, service, exc_info=is_bug)
            self._journal.record(service, f"{action}_failed", str(error) or repr(error))

    async def _carry_out(self, service: str, action: str) -> None:
        if service == MLX_ENGINE:
            await (self._try_engine() if action == "start" else self._restart_engine())
        elif service == OLLAMA:
            await self._ollama.manual_action(action)
        elif service in IN_CONTAINERS and self._decision.mode is Mode.DOCKER:
            await self._container(service, action)
        else:
            await self._child(service, action)

    async def _child(self, service: str, action: str) -> None:
        match action:
            case "start":
                await self._supervisor.start_child(service, "started by hand", reset=True)
            case "stop":
                await self._supervisor.stop_child(service, "stopped by hand")
            case "restart":
                await self._restart_child(service)

    async def _restart_child(self, service: str) -> None:
        """Restart a child. A gateway that can hand over is replaced while it serves, and loses no request."""
        if service == MLX_SERVER and await self._mlx.can_hand_over(self._supervisor.status()[service]):
            await self._supervisor.hand_over_child(service)
        else:
            await self._supervisor.restart_child(service, "restarted by hand", reset=True)

    async def _container(self, service: str, action: str) -> None:
        match action:
            case "start":
                await self._containers.start_by_hand(service)
            case "stop":
                await self._containers.stop_by_hand(service, BY_HAND)
            case "restart":
                await self._containers.restart_by_hand(service, BY_HAND)

    async def kill_engine(self) -> None:
        """Kill the MLX engine with SIGKILL; its gateway starts another. Raises NotPossible if none runs."""
        pid = await self._engine_pid()
        self._journal.record(MLX_ENGINE, "kill_requested", "by hand", pid=pid)
        with contextlib.suppress(ProcessLookupError):  # the engine has ended meanwhile
            os.kill(pid, signal.SIGKILL)

    async def _restart_engine(self) -> None:
        """Terminate the MLX engine; its gateway starts another."""
        os.kill(await self._engine_pid(), signal.SIGTERM)

    async def _try_engine(self) -> None:
        """Replace the gateway, because only a new gateway starts an engine that was given up or whose breaker
        is open. The old gateway hands its requests over if it can.

        Raises NotPossible if the engine was neither given up nor has an open breaker, or if the gateway does
        not report its engine.
        """
        engine = await self._mlx.engine_status(fresh=True)
        if engine is None or engine.state not in GIVEN_UP:
            raise NotPossible("The engine was not given up; its gateway starts it.")
        await self._restart_child(MLX_SERVER)

    async def _engine_pid(self) -> int:
        """Return the PID of the MLX engine. Raises NotPossible if none runs."""
        engine = await self._mlx.engine_status(fresh=True)
        pid = engine.process_pid if engine else None
        if pid is None or "mlx_server.engine" not in process_lookup.command_line(pid):
            raise NotPossible("The engine is not running; its gateway starts it.")
        return pid


def agent_stops() -> HttpError:
    """Return the error for a request that would start something while the agent stops or is replaced."""
    message = "The agent is stopping, and starts nothing any more; ask again once it runs (`vestal up`)."
    return HttpError("agent_stopping", message, status=503, retry_after_s=AGAIN_AFTER_S)
