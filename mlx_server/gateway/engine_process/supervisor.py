"""Start the engine, replace it when it dies or hangs, and stop it with the gateway."""

from __future__ import annotations

import asyncio
import signal as signals
from typing import Any

from mlx_server import protocol
from mlx_server.gateway.engine_events import PROGRAM_CHANGED
from mlx_server.gateway.engine_process.child_spec import NAME, engine_child_spec
from mlx_server.gateway.engine_process.launcher import EngineLauncher
from mlx_server.gateway.engine_process.link import EngineLink
from mlx_server.gateway.engine_process.liveness import EngineLiveness
from mlx_server.gateway.engine_process.recycle_policy import RecyclePolicy
from mlx_server.gateway.engine_process.recycler import Recycler
from mlx_server.gateway.engine_process.session import EngineSession
from mlx_server.gateway.engine_process.standby import StandbyPreparation
from mlx_server.gateway.requests.dispatcher import Dispatcher
from mlx_server.gateway.requests.table.crash_policy import EngineDeath
from mlx_server.gateway.requests.table.request_lifecycle import RequestPhase
from mlx_server.gateway.telemetry import Telemetry
from mlx_server.protocol.digest import EXIT_OTHER_PROTOCOL
from vestal.config import Config
from vestal.platform import oom_kills
from vestal.supervision import (
    ChildStatus,
    Clock,
    Event,
    ProbeResult,
    SleepDetector,
    State,
    StopTimeout,
    Supervisor,
    watch_sleep,
)

READY_WAIT_S = 0.5
SIGKILL = int(signals.SIGKILL)


class EngineSupervisor:
    """Keeps one engine running. Each launched engine has an `EngineSession`. The library `vestal.supervision`
    decides about restarts, and calls this class to learn the engine's health.

    `last_crash` holds the time (`ts`, seconds since 1970) and the `cause` of the last unplanned exit; None
    before the first one. `program_changed` is True once an engine has reported that the installed program
    has another protocol than this gateway, so that no further engine can be started.
    """

    def __init__(
        self,
        config: Config,
        dispatcher: Dispatcher,
        telemetry: Telemetry,
        clock: Clock,
        command: tuple[str, ...],
    ) -> None:
        self.last_crash: dict[str, Any] | None = None
        self.program_changed = False
        self._config = config
        self._dispatcher = dispatcher
        self._telemetry = telemetry
        self._clock = clock
        # Before the first launch the supervisor terminates an engine that an earlier gateway left running.
        self._session = self._new_session(pid=0)
        self._session.exit_is_planned = True
        self._session.supersede()
        self._last_hello: protocol.Hello | None = None
        self._recycler = Recycler(self._new_recycle_policy, self.restart, clock, telemetry)
        self._launcher = EngineLauncher(self._engine_launched)
        spec = engine_child_spec(
            config,
            command,
            clock,
            self._launcher,
            ready=self._start_probe,
            health=self._health_probe,
            productive=self._was_productive,
        )
        self._standby = StandbyPreparation(
            lambda: self._launcher.prepare_standby(spec), self._is_busy, clock, telemetry
        )
        self._supervisor = Supervisor([spec], clock=clock, on_event=self._on_event, name="mlx_server")
        self._sleep_watch: asyncio.Task[None] | None = None
        self._oom_kills = oom_kills.count()
        dispatcher.trial_at = lambda: self._supervisor.trial_at(NAME)

    async def start(self) -> None:
        """Terminate an engine of an earlier gateway if one still runs, and launch a new engine. This returns
        before the new engine is ready.
        """
        self._sleep_watch = asyncio.ensure_future(
            watch_sleep(SleepDetector(), self._clock, self._machine_woke)
        )
        await self._supervisor.start()

    async def stop(self) -> None:
        """Stop the engine with SIGTERM, or with SIGKILL if it does not exit in time. A process that waits in
        a driver may not end even then: in this case, emit an event, leave the process behind, and return.
        """
        self._session.exit_is_planned = True
        await self._standby.stop()
        await self._recycler.stop()
        if self._sleep_watch is not None:
            self._sleep_watch.cancel()
            await asyncio.gather(self._sleep_watch, return_exceptions=True)
        try:
            await self._supervisor.stop()
        except StopTimeout as error:
            self._telemetry.emit("engine_not_stopped", str(error))
        await self._launcher.discard_standby()

    async def restart(self, cause: str) -> None:
        """Replace the engine because of `cause`. Its requests continue in the next engine."""
        self._session.exit_is_planned = True
        await self._supervisor.restart_child(NAME, cause)

    # --- what is known of the engine ---

    def status(self) -> ChildStatus:
        """Return the status of the engine's process, as the supervision library knows it."""
        return self._supervisor.status()[NAME]

    @property
    def is_left_behind(self) -> bool:
        """Return whether this gateway, which had engines before, has none and gets no other because the
        installed program has changed. Only a gateway of the new program can go on.
        """
        failed = self.program_changed and self.status().state is State.FAILED
        return failed and self.hello is not None

    @property
    def ready(self) -> bool:
        """Return whether an engine can serve requests."""
        return self._session.ready

    @property
    def loading(self) -> str | None:
        """Return the name of the model that the engine is loading; None if it loads none."""
        return self._session.liveness.loading

    @property
    def report(self) -> protocol.Alive:
        """Return the newest heartbeat event of the current engine, with the state of its memory and its
        prompt cache. Before the first one, return an event whose numbers are all 0.
        """
        return self._session.report

    @property
    def hello(self) -> protocol.Hello | None:
        """Return the newest greeting of an engine, which contains the versions of its libraries; None before
        the first greeting.
        """
        return self._session.hello or self._last_hello

    # --- one engine after another ---

    def _engine_launched(self, pid: int) -> EngineLink:
        self._session.supersede()
        self._last_hello = self.hello
        self._session = self._new_session(pid)
        self._recycler.engine_launched()
        return self._session.link

    def _new_session(self, pid: int) -> EngineSession:
        mlx = self._config.mlx
        liveness = EngineLiveness(mlx.progress_timeout_s, self._clock.now(), mlx.probe_interval_s)
        return EngineSession(
            pid, self._dispatcher, self._telemetry, self._clock, liveness, self._engine_ready
        )

    def _new_recycle_policy(self, started_at: float) -> RecyclePolicy:
        mlx = self._config.mlx
        return RecyclePolicy(mlx.recycle_above_bytes, mlx.recycle_after_s, started_at)

    def _engine_ready(self) -> None:
        self.program_changed = False  # the engine was started from the program as it is now
        if self._config.mlx.warm_spare:
            self._standby.engine_ready()

    # --- called by the supervision library ---

    async def _start_probe(self, pid: int) -> ProbeResult:
        """Return the health of a starting engine, after a wait of up to READY_WAIT_S for its report that it
        is ready.

        The wait lets readiness be noticed at once. Otherwise an engine that became ready and died before the
        next probe would count as a failed start.
        """
        await self._session.wait_until_ready(READY_WAIT_S)
        return await self._health_probe(pid)

    async def _health_probe(self, _pid: int) -> ProbeResult:
        self._oom_kills = oom_kills.count()
        if self._launcher.standby_exit_code == EXIT_OTHER_PROTOCOL and not self.program_changed:
            self._report_changed_program()
        if not self.program_changed:  # this engine is the last one
            self._recycler.check(self._session, self._is_busy())
        return self._session.health()

    def _was_productive(self, pid: int) -> bool:
        return self._session.pid == pid and self._session.productive

    def _is_busy(self) -> bool:
        return self._dispatcher.count(RequestPhase.RUNNING) > 0

    def _machine_woke(self, slept_s: float) -> None:
        """Have the engine probed at once, because the GPU may have lost the engine's state while the machine
        slept.
        """
        self._supervisor.machine_woke(slept_s)
        self._session.liveness.machine_woke(self._clock.now())

    def _report_changed_program(self) -> None:
        self.program_changed = True
        self._telemetry.emit(PROGRAM_CHANGED, "the installed program has changed since this gateway started")

    def _on_event(self, event: Event) -> None:
        if event.event == "child_gave_up" and event.fields.get("code") == EXIT_OTHER_PROTOCOL:
            self._report_changed_program()
            if self.hello is not None:  # the engine is no failure: its requests wait for the next gateway
                return
        elif event.event == "child_gave_up":
            self.program_changed = False  # there is another reason
        self._telemetry.relay(event)
        if event.component != NAME:
            return
        if event.event in ("health_failed", "child_start_timed_out"):
            self._session.fault = event.cause or event.event
        elif event.event == "child_exited":
            self._engine_exited(event)
        elif event.event == "child_gave_up":
            log = self._config.home.logs / "engine.log"
            self._dispatcher.give_up(f"The engine cannot start: {event.cause} (see {log}).")

    def _engine_exited(self, event: Event) -> None:
        """Record the exit of the current engine, before the next one is launched.

        An engine that was ended because it hung may exit with code 0. That is a crash, too.
        """
        code, signal = event.fields.get("code"), event.fields.get("signal")
        if code == EXIT_OTHER_PROTOCOL:
            self._session.exit_is_planned = True
        before, self._oom_kills = self._oom_kills, oom_kills.count()
        killed_for_memory = before is not None and self._oom_kills is not None and self._oom_kills > before
        if killed_for_memory and signal == SIGKILL:
            self._telemetry.emit("engine_killed_for_memory", "the kernel killed a process for want of memory")
        death = self._session.exited(code, signal, killed_for_memory)
        if death is EngineDeath.OWN_FAULT or (death is EngineDeath.UNKNOWN_KILL and code != 0):
            self.last_crash = {"ts": event.ts, "cause": event.cause}
            self._telemetry.engine_crashes += 1
