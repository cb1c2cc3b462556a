"""The engine as the gateway's child: started, watched, replaced; its link joined to the dispatcher."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from mlx_server import protocol
from mlx_server.engine_environment import engine_environment
from mlx_server.gateway.engine_process.link import EngineLauncher, EngineLink
from mlx_server.gateway.engine_process.liveness import EngineLiveness
from mlx_server.gateway.engine_process.memory_gate import MemoryGate
from mlx_server.gateway.engine_process.recycling import Recycling
from mlx_server.gateway.requests.dispatcher import Dispatcher
from mlx_server.gateway.requests.request_lifecycle import RequestPhase
from mlx_server.gateway.telemetry import Telemetry
from vestal.config import Config
from vestal.platform import model_servers
from vestal.supervision import (
    Backoff,
    BreakerPolicy,
    ChildSpec,
    ChildStatus,
    Clock,
    Event,
    Intensity,
    ProbePolicy,
    ProbeResult,
    RestartPolicy,
    SleepDetector,
    SupervisionError,
    Supervisor,
    watch_sleep,
)

NAME = "mlx_engine"
SPARE_AFTER_S, SPARE_AT_LAST_S = 2.0, 20.0
"""A spare's imports take a core for a second, which those who are served need more: it is made when nobody
is, from the first on, or at the second whatever happens."""
READY_WAIT_S = 0.5
STABLE_AFTER_S = 1.0
"""Killing the engine is a normal remedy: a short good run earns a restart at once."""


class Engine:
    """Owner of the engine's supervisor and of the link to the engine that runs now."""

    def __init__(
        self,
        config: Config,
        dispatcher: Dispatcher,
        telemetry: Telemetry,
        clock: Clock,
        command: tuple[str, ...],
    ) -> None:
        self.last_crash: dict[str, Any] | None = None
        self.hello: protocol.Hello | None = None
        self._config = config
        self._dispatcher = dispatcher
        self._telemetry = telemetry
        self._clock = clock
        self._link: EngineLink | None = None
        self._pulse = self._new_pulse()
        self._came = asyncio.Event()
        self._recycling = self._new_recycling()
        self._replacing: asyncio.Task[None] | None = None
        self._on_purpose = True  # an end that is no crash; an engine left over from before is ended first
        self._launcher = EngineLauncher(self._new_link)
        self._preparing: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._engine_spec = self._spec(command)
        self._supervisor = Supervisor(
            [self._engine_spec], clock=clock, on_event=self._on_event, name="mlx_server"
        )

    async def start(self) -> None:
        """Ends what an earlier gateway left behind, then starts an engine; returns before it is ready."""
        self._watching = asyncio.ensure_future(watch_sleep(SleepDetector(), self._clock, self.woke))
        await self._supervisor.start()

    async def stop(self) -> None:
        """SIGTERM, the engine's six stages, and SIGKILL only for one that does not end."""
        self._on_purpose = True
        for task in filter(None, (self._preparing, self._replacing, self._watching)):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._supervisor.stop()
        await self._launcher.discard()

    async def restart(self, cause: str) -> None:
        """Replaces the engine; requests in flight go on in the next one."""
        self._on_purpose = True
        await self._supervisor.restart_child(NAME, cause)

    def woke(self, slept_s: float) -> None:
        """The machine has slept: the engine must show that it still makes tokens."""
        self._supervisor.machine_woke(slept_s)
        self._pulse.woke(self._clock.now())

    def status(self) -> ChildStatus:
        return self._supervisor.status()[NAME]

    @property
    def loading(self) -> str | None:
        """The model that is being loaded."""
        return self._pulse.loading

    @property
    def pulse(self) -> EngineLiveness:
        """What the engine that runs now has told of itself last; zeros before its first word."""
        return self._pulse

    @property
    def ready(self) -> bool:
        """Whether requests are being served now."""
        return self._link is not None and self._pulse.ready

    # --- the child ---

    def _spec(self, command: tuple[str, ...]) -> ChildSpec:
        home = self._config.home
        return ChildSpec(
            name=NAME,
            command=command,
            env=engine_environment(home.cache) | {"VESTAL_HOME": str(home.root)},
            log_path=home.logs / "engine.log",
            pid_file=home.run / f"{NAME}.json",
            ready=self._probe_at_start,
            health=self._probe,
            policy=_policy(self._config),
            adopt=False,  # its link died with the gateway that had made it
            launcher=self._launcher,
            before_launch=MemoryGate(model_servers.current_headroom, self._clock),
        )

    def _new_pulse(self) -> EngineLiveness:
        mlx = self._config.mlx
        return EngineLiveness(mlx.progress_timeout_s, self._clock.now(), mlx.probe_interval_s)

    def _new_recycling(self) -> Recycling:
        mlx = self._config.mlx
        return Recycling(mlx.recycle_above_bytes, mlx.recycle_after_s, self._clock.now())

    def _new_link(self) -> EngineLink:
        self._link = EngineLink(self._on_link_event, self._on_link_lost)
        self._pulse, self._came = self._new_pulse(), asyncio.Event()
        self._recycling = self._new_recycling()
        self._on_purpose = False
        return self._link

    async def _probe_at_start(self, pid: int) -> ProbeResult:
        """Answers as soon as the engine says that it is ready: one that serves and then dies, before anybody
        has asked, would count as a failed start."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_WAIT_S):
                await self._came.wait()
        return await self._probe(pid)

    async def _probe(self, _pid: int) -> ProbeResult:
        running, now = self._dispatcher.count(RequestPhase.RUNNING), self._clock.now()
        if self._link is not None and self._pulse.probe_due(running, now):
            self._link.send(protocol.Probe("probe"))
        self._recycle(bool(running), now)
        return self._pulse.judge(running, now)

    def _recycle(self, busy: bool, now: float) -> None:
        """A planned end: what runs is handed back, and goes on in the next engine."""
        pulse = self._pulse
        cause = self._recycling.due(pulse.footprint_bytes, pulse.limit_bytes, busy, now)
        if cause and pulse.ready and (self._replacing is None or self._replacing.done()):
            self._telemetry.emit("engine_recycled", cause, pid=self._link.pid if self._link else 0)
            self._replacing = asyncio.ensure_future(self.restart(cause))

    # --- the link ---

    def _on_link_event(self, link: EngineLink, event: protocol.Event) -> None:
        if link is not self._link:
            return
        self._pulse.on_event(event, self._clock.now())
        match event:
            case protocol.Hello():
                self.hello = event
                self._telemetry.emit("engine_greeted", pid=event.pid, mlx=event.mlx_version, blas=event.blas)
            case protocol.Ready():
                self._came.set()
                self._telemetry.emit("engine_ready", loaded=list(event.loaded), start_s=event.start_s)
                self._dispatcher.models.on_event(event)
                self._dispatcher.engine_came(self._sender(link), event.loaded)
                if self._config.mlx.warm_spare:
                    self._prepare_spare()
            case protocol.Loaded(model=model) if not self._pulse.ready:
                self._dispatcher.on_event(event)
                self._dispatcher.model_came(self._sender(link), model)
            case protocol.Failed(code="engine_unavailable"):
                self._hurry(link)
                self._dispatcher.on_event(event)
            case _:
                self._dispatcher.on_event(event)

    def _prepare_spare(self) -> None:
        if self._preparing is None or self._preparing.done():
            self._preparing = asyncio.ensure_future(self._have_spare())

    async def _have_spare(self) -> None:
        at_last = self._clock.now() + SPARE_AT_LAST_S
        await self._clock.sleep(SPARE_AFTER_S)
        while self._dispatcher.count(RequestPhase.RUNNING) and self._clock.now() < at_last:
            await self._clock.sleep(0.5)
        try:
            await self._launcher.prepare(self._engine_spec)
        except (SupervisionError, OSError) as error:  # the next start takes a second longer, no more
            self._telemetry.emit("spare_not_started", str(error))

    def _hurry(self, link: EngineLink) -> None:
        """Somebody has told the engine to end, and it drains. The next one serves all the sooner."""
        if not self._on_purpose:
            self._on_purpose = True
            link.send(protocol.Shutdown(drain_s=0))

    def _sender(self, link: EngineLink) -> Callable[[protocol.Op], None]:
        def send(operation: protocol.Op) -> None:
            self._pulse.work_sent(self._dispatcher.count(RequestPhase.RUNNING) <= 1, self._clock.now())
            link.send(operation)

        return send

    def _on_link_lost(self, link: EngineLink, cause: str) -> None:
        if link is not self._link:
            return
        self._link = None
        self._telemetry.emit("engine_link_closed", cause, pid=link.pid)
        self._dispatcher.engine_left(blame=not self._on_purpose)

    # --- what the supervisor reports ---

    def _on_event(self, event: Event) -> None:
        self._telemetry.relay(event)
        if event.component != NAME:
            return
        if event.event == "child_exited" and event.fields.get("code") != 0 and not self._on_purpose:
            self.last_crash = {"ts": event.ts, "cause": event.cause}
            self._telemetry.engine_crashes += 1
        elif event.event == "child_gave_up":
            log = self._config.home.logs / "engine.log"
            self._dispatcher.give_up(f"the engine cannot start: {event.cause} (see {log})")


def _policy(config: Config) -> RestartPolicy:
    s = config.supervision
    return RestartPolicy(
        backoff=Backoff(s.backoff_base_s, s.backoff_max_s),
        intensity=Intensity(s.max_restarts, s.window_s),
        breaker=BreakerPolicy(s.breaker_failures, s.breaker_open_s),
        start_timeout_s=60.0,
        stop_timeout_s=s.stop_s,
        stable_after_s=STABLE_AFTER_S,
        settle_after_kill_s=s.settle_after_kill_s,
        # One failed judgement is enough: its patience is inside it.
        probe=ProbePolicy(interval_s=1.0, timeout_s=5.0, failures=1),
    )
