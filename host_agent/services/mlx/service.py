"""The MLX server: how its gateway is started and probed, and the status of its engine."""

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
import psutil

from host_agent.installed import digests
from host_agent.services import MLX_SERVER, child_environment, http_probe, process_activity
from host_agent.services.configured_restart_policy import restart_policy
from host_agent.services.find_process import find_supervised
from host_agent.services.http_probe import NoAnswer
from host_agent.services.mlx.answers import (
    GatewayAnswer,
    judge_gateway,
    read_engine_status,
    read_write_failures,
    request_count,
)
from host_agent.services.mlx.gateway_sockets import GatewaySockets, KeepSockets, keep_nowhere
from host_agent.services.service_status import ServiceStatus
from vestal.config import Config, handed_down
from vestal.supervision import (
    PRODUCTIVE_WEIGHT,
    UP,
    ChildSpec,
    ChildStatus,
    Event,
    HandoverPolicy,
    ProbeResult,
    ProcessIdentity,
)
from vestal.supervision.processes.identity import identify
from vestal.web.listening_sockets import InheritedSockets

log = logging.getLogger("vestal")

GATEWAY = (sys.executable, "-m", "mlx_server.gateway")
SHUTDOWN_STAGES_S = 20.0  # after the drain: the engine's six stages (10 s and its kill), and the connections
START_TIMEOUT_S = 180.0
STATUS_TIMEOUT_S = 1.0
READY_TIMEOUT_S = 60.0
RELEASE_TIMEOUT_S = 30.0
LINGER_S = 900.0
FIRST_DELIVERY = "gateway_first_delivery"  # an event of the gateway, with its PID
PROGRAM_CHANGED = "program_changed"  # an event of the gateway: engines started now do not fit it
CACHE_S = 0.3  # readers that ask at the same time share one answer


class MlxService:
    """Describes the gateway to the supervisor, and asks the gateway for its state and that of its engine.

    `command` is the gateway's command line. `inherited` has the listening sockets that stayed open when an
    earlier agent replaced itself by this one. Each probe calls `on_health` with the body of the gateway's
    answer to GET /health, or with None if there is no answer. `keep_sockets` passes the gateway's sockets to
    the watchdog.
    """

    def __init__(
        self,
        config: Config,
        session: aiohttp.ClientSession,
        command: tuple[str, ...] = GATEWAY,
        inherited: InheritedSockets | None = None,
        on_health: Callable[[Mapping[str, Any] | None], None] = lambda body: None,
        keep_sockets: KeepSockets = keep_nowhere,
    ) -> None:
        self._config, self._session, self._command = config, session, command
        self._on_health = on_health
        self._url = f"http://127.0.0.1:{config.mlx.port}/health"
        self.port = config.mlx.port
        self.sockets = GatewaySockets(config, inherited or InheritedSockets(), self._digest, keep_sockets)
        self._hands_over: int | None = None  # the PID of the gateway that last said that it can hand over
        self._requests: int | None = None
        self._served: object = None  # the PID of the last gateway that said that it served a client
        self._write_failures: dict[str, Any] = {}
        self._reporter: ProcessIdentity | None = None  # the gateway that reported these failures
        self._answer: tuple[float, GatewayAnswer | None] = (float("-inf"), None)

    def spec(self) -> ChildSpec:
        """Return the gateway's child spec."""
        home = self._config.home
        # Without a log of answers, a successor waits until its predecessor has finished them.
        drain_s = 0.0 if self._config.mlx.keep_answers_s else self._config.mlx.drain_s
        policy = restart_policy(
            self._config.supervision,
            start_timeout_s=START_TIMEOUT_S + drain_s,
            planned_stop_timeout_s=self._config.mlx.drain_s + SHUTDOWN_STAGES_S,
            productive_weight=PRODUCTIVE_WEIGHT,
        )
        return ChildSpec(
            name=MLX_SERVER,
            command=self._command,
            env=child_environment.common(self._config) | handed_down.for_child(self._config),
            log_path=home.logs / "mlx_server.log",
            pid_file=home.run / "mlx_server.json",
            find=find_supervised,
            ready=self.probe,
            health=self.probe,
            productive=self.has_served,
            activity=process_activity.reader(self.port),
            policy=policy,
            launcher=self.sockets,
            handover=_handover_policy(self._config),
        )

    def _digest(self) -> dict[str, str]:
        """Return the environment variable with the digest of the code and settings of a new gateway."""
        return {digests.DIGEST_VARIABLE: digests.digest(MLX_SERVER, settings_text(self._config))}

    async def can_hand_over(self, gateway: ChildStatus) -> bool:
        """Ask the gateway by GET /health, and return whether it can hand its requests over to a successor. If
        it cannot, it must be restarted.

        Return False too if the agent does not hold the listening sockets that the successor needs. It lacks
        them if it adopted the gateway of an agent that died, or if its settings name another port. Return
        False also if the gateway keeps an answer log and its successor would not (`mlx.keep_answers_s` is 0
        now): the successor would delete the log, and with it the answers that were handed over.
        """
        if gateway.state not in UP or gateway.process_pid is None or not self.sockets.held:
            return False
        pid = gateway.process_pid
        if not self._config.mlx.keep_answers_s and await asyncio.to_thread(_keeps_answers, pid):
            return False
        await self.probe(pid)
        return self._hands_over == pid

    @property
    def requests(self) -> int | None:
        """Return how many requests the gateway was running, queuing or keeping for its next engine when it
        last answered a probe by GET /health. Return None if that answer had no number, or if there was none
        yet.
        """
        return self._requests

    @property
    def write_failures(self) -> dict[str, Any]:
        """Return the failed writes of the gateway and its engine, by process, as the running gateway reported
        them last. Return an empty dict if the gateway that reported them has ended, because the report may be
        out of date and no process would correct it.
        """
        return self._write_failures if self._reporter and self._reporter.alive() else {}

    def on_gateway_event(self, event: Event) -> None:
        """Remember the PID of the gateway if `event` reports that gateway's first answer to a client; ignore
        any other event.
        """
        if event.event == FIRST_DELIVERY:
            self._served = event.fields.get("pid")

    def has_served(self, pid: int) -> bool:
        """Return whether the gateway with this PID is known to have given a client a token or an answer."""
        return self._served == pid

    async def probe(self, pid: int) -> ProbeResult:
        """Send GET /health to the gateway's port, and return whether the gateway with the PID `pid` is
        healthy, and its state. The probe fails if nothing answers, or if the answer is from a process with
        another PID. Call `on_health` with the body of the answer, or with None if there is none.
        """
        try:
            reply = await http_probe.get(self._session, self._url)
            self._report_health(reply.fields)
            if reply.fields.get("pid") == pid:
                self._hands_over = pid if reply.fields.get("hands_over") is True else None
                self._requests = request_count(reply)
            return judge_gateway(reply, pid)
        except NoAnswer as error:
            self._report_health(None)
            return ProbeResult(False, f"{self._url}: {error}", answered=False)

    def _report_health(self, body: Mapping[str, Any] | None) -> None:
        """Call `on_health` with `body`, the gateway's answer to GET /health; None means that it did not
        answer. Log an exception of `on_health` and do not raise it, because it must not count as a failed
        health check.
        """
        try:
            self._on_health(body)
        except Exception:
            log.exception("an answer of the MLX server could not be recorded")

    async def engine_status(self, fresh: bool = False) -> ServiceStatus | None:
        """Return the engine's status, which is part of the gateway's answer to GET /health; None if the
        gateway does not answer. The answer is at most CACHE_S old, or requested now if `fresh`.
        """
        answer = await self.answer(fresh)
        return answer.engine if answer else None

    async def answer(self, fresh: bool = False) -> GatewayAnswer | None:
        """Return the gateway's answer to GET /health, at most CACHE_S old, or requested now if `fresh`; None
        if the gateway does not answer.
        """
        asked_at, answer = self._answer
        if fresh or time.monotonic() - asked_at > CACHE_S:
            try:
                reply = await http_probe.get(self._session, self._url, timeout_s=STATUS_TIMEOUT_S)
            except NoAnswer:
                return None
            answer = GatewayAnswer(reply, read_engine_status(reply))
            self._write_failures, pid = read_write_failures(reply), reply.fields.get("pid")
            self._reporter = identify(pid) if isinstance(pid, int) else None
            self._answer = (time.monotonic(), answer)
        return answer


def settings_text(config: Config) -> str:
    """Return, as JSON, the settings that the gateway and its engine read. An upgrade compares digests of the
    code and of this text to find out whether a running gateway is out of date.
    """
    return config.model_dump_json(include=set(handed_down.SECTIONS))


def _keeps_answers(pid: int) -> bool:
    """Return whether the gateway with this PID was started with settings that keep an answer log. Return True
    also if its settings cannot be read.
    """
    try:
        text = psutil.Process(pid).environ().get(handed_down.VARIABLE, "")
    except psutil.Error:
        return True
    started_with = handed_down.read(text)
    return started_with is None or started_with.mlx.keep_answers_s > 0


def _handover_policy(config: Config) -> HandoverPolicy:
    """Return the time limits of a handover. If no answer log is kept (`mlx.keep_answers_s` is 0), the old
    gateway must first finish its answers, which may take `mlx.drain_s` more.
    """
    drain_s = 0.0 if config.mlx.keep_answers_s else config.mlx.drain_s
    return HandoverPolicy(
        ready_timeout_s=READY_TIMEOUT_S,
        release_timeout_s=RELEASE_TIMEOUT_S + drain_s,
        linger_s=LINGER_S,
        stop_timeout_s=config.supervision.stop_s,
    )
