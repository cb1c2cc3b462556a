"""Pass the events of one engine to the dispatcher, and the dispatcher's operations to that engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from mlx_server import protocol
from mlx_server.gateway.engine_process.exit_evidence import ExitEvidence
from mlx_server.gateway.engine_process.link import EngineLink
from mlx_server.gateway.engine_process.liveness import EngineLiveness
from mlx_server.gateway.requests.dispatcher import Dispatcher
from mlx_server.gateway.requests.table.crash_policy import EngineDeath
from mlx_server.gateway.requests.table.request_lifecycle import RequestPhase
from mlx_server.gateway.telemetry import Telemetry
from vestal.supervision import Clock, ProbeResult

log = logging.getLogger(__name__)


class EngineSession:
    """The gateway's view of one engine process, from its launch until its link closes.

    `report` is the engine's last `Alive` event, all zeros before the first one. `exit_is_planned` is True
    once somebody has asked the engine to exit; the exit is then not a crash, and does not count against the
    engine's requests, unless it has a `fault`. `fault` describes why the engine was ended, such as a hang; it
    is empty if there was no fault. `on_ready` is called when the engine is ready to serve.
    """

    def __init__(
        self,
        pid: int,
        dispatcher: Dispatcher,
        telemetry: Telemetry,
        clock: Clock,
        liveness: EngineLiveness,
        on_ready: Callable[[], None],
    ) -> None:
        self.pid = pid
        self.link = EngineLink(self._on_event, self._on_link_lost)
        self.liveness = liveness
        self.hello: protocol.Hello | None = None
        self.report = protocol.Alive(0, False, 0)
        self.exit_is_planned = False
        self.fault = ""
        self._delivered_before = telemetry.deliveries
        self._dispatcher = dispatcher
        self._telemetry = telemetry
        self._clock = clock
        self._on_ready = on_ready
        self._became_ready = asyncio.Event()
        self._open = True
        self._logged_faults: set[tuple[str, str]] = set()

    @property
    def ready(self) -> bool:
        """Return whether the engine can serve requests."""
        return self._open and self.liveness.ready

    @property
    def productive(self) -> bool:
        """Return whether clients got a new token or an answer from this engine."""
        return self._telemetry.deliveries > self._delivered_before

    def exited(self, code: int | None, signal: int | None, killed_for_memory: bool) -> EngineDeath:
        """Record that the engine's process has exited, and have the dispatcher decide which of the engine's
        requests continue in the next engine. Return what kind of death the exit was.

        `code` and `signal` are the exit status, both None if that is unknown. `killed_for_memory` is True if
        the kernel killed a process for lack of memory at that time.
        """
        self._on_link_lost("the engine has exited")
        fault = self.fault or self.link.protocol_fault
        evidence = ExitEvidence(self.exit_is_planned, code, signal, fault, killed_for_memory)
        death = evidence.death()
        self._dispatcher.engine_died(death)
        return death

    def supersede(self) -> None:
        """Ignore all further events of this engine, because another engine has been launched."""
        self._open = False

    # --- towards the engine ---

    def send(self, frame: bytes) -> None:
        """Send the engine an encoded operation of a request. If the engine was idle, the time in which it
        must make progress begins now.
        """
        first_request = self._running() <= 1
        self.liveness.work_sent(first_request, self._clock.now())
        self.link.send_frame(frame)

    def _exit_at_once(self) -> None:
        """Ask the engine to exit immediately, unless it was asked to exit before.

        This is called when the engine gives a request back because it shuts down (drains). If the gateway has
        not asked for this, a signal from outside has made the engine drain. The sooner the engine exits, the
        sooner the next engine can serve the request.
        """
        if not self.exit_is_planned:
            self.exit_is_planned = True
            self.link.send(protocol.Shutdown(drain_s=0))

    # --- health ---

    async def wait_until_ready(self, timeout_s: float) -> None:
        """Return as soon as the engine has reported that it is ready, and after `timeout_s` seconds in any
        case.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._became_ready.wait()

    def health(self) -> ProbeResult:
        """Return the engine's health, judged by its events so far. Send the engine a probe if one is due."""
        running, now = self._running(), self._clock.now()
        if self._open and self.liveness.probe_due(running, now):
            self.link.send(protocol.Probe("probe"))
        return self.liveness.judge(running, now)

    def _running(self) -> int:
        return self._dispatcher.count(RequestPhase.RUNNING)

    # --- from the engine ---

    def _on_event(self, event: protocol.Event) -> None:
        """Handle an event of the engine. An exception of the handler is not raised, because the link would
        then close, and every request would lose its engine. The exception is logged only once for each type
        of event and type of exception: an engine sends thousands of events, whose tracebacks would fill the
        disk.
        """
        if not self._open:
            return
        self.liveness.on_event(event, self._clock.now())
        try:
            self._handle(event)
        except Exception as error:
            fault = (type(event).__name__, type(error).__name__)
            if fault not in self._logged_faults:
                self._logged_faults.add(fault)
                log.exception("Events of the engine (%s) cannot be handled", type(event).__name__)

    def _handle(self, event: protocol.Event) -> None:
        match event:
            case protocol.Hello():
                self.hello = event
                self._telemetry.emit("engine_greeted", pid=event.pid, mlx=event.mlx_version, blas=event.blas)
                self._dispatcher.engine_connected(self.link.send_frame)
            case protocol.Ready():
                self._became_ready.set()
                self._telemetry.emit("engine_ready", loaded=list(event.loaded), start_s=event.start_s)
                self._dispatcher.on_event(event)
                self._dispatcher.engine_ready(self.send, event.loaded)
                self._on_ready()
            case protocol.Loaded(model=model) if not self.liveness.ready:
                self._dispatcher.on_event(event)
                self._dispatcher.model_loaded_early(self.send, model)
            case protocol.Failed(code="engine_unavailable"):
                self._exit_at_once()
                self._dispatcher.on_event(event)
            case protocol.Alive():
                self.report = event
                self._dispatcher.on_event(event)
            case _:
                self._dispatcher.on_event(event)

    def _on_link_lost(self, cause: str) -> None:
        if not self._open:
            return
        self._open = False
        self._telemetry.emit("engine_link_closed", cause, pid=self.pid)
        self._dispatcher.engine_lost()
