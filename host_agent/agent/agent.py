"""The host agent: puts its parts together, runs them, and stops them in order."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

import aiohttp

from host_agent.journal import Journal
from host_agent.listener.context import ListenerContext
from host_agent.listener.server import Listener
from host_agent.listener.sessions import Sessions
from host_agent.notifications.channels import channels
from host_agent.notifications.notifier import Notifier
from host_agent.recovery.effects import HostEffects
from host_agent.recovery.ollama_effects import OllamaEffects
from host_agent.recovery.passes import Passes
from host_agent.services import MLX_SERVER
from host_agent.services.docker.compose import Compose
from host_agent.services.docker.containers import Containers
from host_agent.services.docker.docker_api import DockerApi
from host_agent.services.docker.docker_engine import DockerEngine
from host_agent.services.mlx.engine_events import EngineEvents
from host_agent.services.mlx.service import GATEWAY, MlxService
from host_agent.services.ollama import OllamaService
from host_agent.services.orchestrator import mode, native
from host_agent.services.orchestrator.mode import Decision, Mode
from host_agent.services.orchestrator.probe import OrchestratorProbe
from host_agent.services.service_control import ServiceControl
from host_agent.services.status_report import StatusReport
from vestal.config import Config, keep_token
from vestal.platform import log_rotation
from vestal.supervision import (
    JsonStateStore,
    SleepWatch,
    SupervisionError,
    Supervisor,
    SystemClock,
    watch_sleep,
)

log = logging.getLogger("vestal")

FIRST_PASS_AFTER_S = 15.0
HOUSEKEEPING_EACH_S = 600.0
TOKEN_EACH_S = 1.0
RECREATED_WITHIN_S = 3.0
LOOP_AGAIN_S = 5.0


class Agent:
    """Everything on this host that Vestal looks after, for one home."""

    def __init__(self, config: Config, token: str, gateway: tuple[str, ...] = GATEWAY) -> None:
        self._config, self._token, self._gateway = config, token, gateway
        self.journal = Journal(config.home.journal_db)
        self._tasks: list[asyncio.Task[None]] = []
        self._sleep = SleepWatch()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; then every child is ended in order."""
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self.journal.close)
            session = await stack.enter_async_context(aiohttp.ClientSession(trust_env=False))
            api = DockerApi()
            stack.push_async_callback(api.close)
            compose = Compose(self._config)
            decision = await mode.decide(self._config, api, compose)
            self._build(session, api, compose, decision)
            await self._listener.start()
            stack.push_async_callback(self._listener.stop)
            told = {"mode": str(decision.mode), "port": self._config.agent.port}
            self.journal.record("agent", "agent_started", decision.why, **told)
            await self._supervisor.start()
            await self._begin_ollama()
            self._begin(decision)
            await stop.wait()
            await self._stop()

    def _build(
        self, session: aiohttp.ClientSession, api: DockerApi, compose: Compose, decision: Decision
    ) -> None:
        config, journal = self._config, self.journal
        self._notifier = Notifier(journal, channels(config.notifications, session))
        store = JsonStateStore(config.home.root / "supervision.json")
        mlx = MlxService(config, session, self._gateway)
        self._engine_events = EngineEvents(session, config.mlx.port, journal)
        specs = (mlx.spec(), *(native.specs(config, session) if decision.mode is Mode.NATIVE else ()))
        self._supervisor = Supervisor(specs, on_event=journal.append, store=store, name="agent")
        self._containers = Containers(api, compose, journal, store)
        engine = DockerEngine(api, compose.project, decision)
        self.ollama = OllamaService(config, session, store, journal.append, self._request_pass)
        table = StatusReport(
            self._supervisor, mlx, self.ollama, engine, self._containers, decision, store, self._sleep
        )
        probe = OrchestratorProbe(session, config.orchestrator.port)
        healer = OllamaEffects(self.ollama, config.supervision.stop_s)
        self._hands = HostEffects(
            config, self._supervisor, specs, self._containers, table, store, probe.answers, healer
        )
        self.passes = Passes(self._hands, journal, config.home.run / "recovery.lock")
        actions = ServiceControl(self._supervisor, self._containers, mlx, self.ollama, decision, journal)
        self._parts = ListenerContext(table, self.passes, journal, actions, Sessions())
        self._listener = Listener(config, self._token, self._parts, journal)

    def _begin(self, decision: Decision) -> None:
        loops = {
            "scheduled passes": self._scheduled_passes,
            "monitor": self._monitor,
            "housekeeping": self._housekeeping,
            "engine events": self._engine_events.follow,
            "token": self._keep_token,
            "Ollama": self.ollama.watch,
            "sleep": self._watch_sleep,
            "notifications": self._notifier.run,
        }
        if decision.mode is Mode.DOCKER:
            loops["container events"] = self._containers.deaths.run
            loops["what Docker leaves"] = self._what_docker_leaves
        self._tasks = [asyncio.create_task(self._keep(name, loop)) for name, loop in loops.items()]

    async def _keep(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """A loop that fails is told of and begun again."""
        while True:
            try:
                await loop()
            except Exception as error:
                log.exception("%s failed", name)
                self.journal.record("agent", "loop_failed", f"{name}: {error!r}")
            await asyncio.sleep(LOOP_AGAIN_S)

    async def _stop(self) -> None:
        self.journal.record("agent", "agent_stopping")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.passes.cancel()
        self.journal.dismiss()
        for stop in (self.ollama.keeper.end, self._supervisor.stop):
            try:
                await stop()
            except SupervisionError as error:
                self.journal.record("agent", "stop_incomplete", str(error))
        self.journal.record("agent", "agent_stopped")

    def _request_pass(self, reason: str) -> None:
        self.passes.request(reason)

    async def _begin_ollama(self) -> None:
        """What goes wrong with it must not keep the agent from the rest; the next pass tries again."""
        try:
            await self.ollama.begin()
        except Exception as error:
            log.exception("Ollama could not be begun with")
            self.journal.record("ollama", "begin_failed", repr(error))

    async def _scheduled_passes(self) -> None:
        """R4.3, while the agent lives. A pass under way is joined, never doubled."""
        wait_s = FIRST_PASS_AFTER_S
        while True:
            self._parts.next_pass_at = time.monotonic() + wait_s
            await asyncio.sleep(wait_s)
            self.passes.request("scheduled")
            await self.passes.wait()
            wait_s = self._config.agent.recovery_interval_s

    async def _monitor(self) -> None:
        """R4.4: asks the MLX server each 30 s. A pass replaces a hung one, at most 5 times an hour."""
        while True:
            await asyncio.sleep(self._config.agent.monitor_interval_s)
            if await self._hands.is_hung(MLX_SERVER):
                self.passes.request("the monitor had no answer from the MLX server")

    async def _watch_sleep(self) -> None:
        await watch_sleep(self._sleep, SystemClock(), self._woke)

    def _woke(self, slept_s: float) -> None:
        """Metal's context may be gone, and Ollama hang: everything is asked at once, and a pass made."""
        self._supervisor.woke(slept_s)
        self.ollama.woke(slept_s)
        self._hands.forget_replacements()
        self.passes.request(f"the machine woke after {slept_s:.0f} s of sleep")

    async def _keep_token(self) -> None:
        while True:
            if keep_token(self._config.home, self._token):
                self.journal.record(
                    "agent", "token_restored", f"{self._config.home.token} was gone or changed"
                )
            await asyncio.sleep(TOKEN_EACH_S)

    async def _what_docker_leaves(self) -> None:
        """Docker restarts neither what is unhealthy nor what was killed by hand.

        Whoever recreates a container gets the time for it. A pass under way is joined and looks again: it may
        be waiting for this very container, which was killed a second time.
        """
        while True:
            reason = await self._containers.deaths.calls_for_a_pass.get()
            await asyncio.sleep(RECREATED_WITHIN_S)
            self.passes.request(reason)

    async def _housekeeping(self) -> None:
        while True:
            await asyncio.to_thread(log_rotation.rotate, self._config.home.logs)
            await asyncio.sleep(HOUSEKEEPING_EACH_S)
