"""The MLX server: how its gateway is started and probed, and the status of its engine."""

import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp

from host_agent.installed import digests
from host_agent.services import MLX_SERVER, child_environment, http_probe, process_activity
from host_agent.services.find_process import find_supervised
from host_agent.services.http_probe import NoAnswer, Reply
from host_agent.services.mlx.gateway_sockets import GatewaySockets
from host_agent.services.restart_policy import restart_policy
from host_agent.services.service_status import ServiceStatus
from vestal.config import Config
from vestal.supervision import (
    PRODUCTIVE_WEIGHT,
    UP,
    ChildSpec,
    ChildStatus,
    Event,
    HandoverPolicy,
    ProbeResult,
    State,
)
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
CACHE_S = 0.3  # readers that ask at the same time share one answer
DETAILS = {
    "ok": "",
    "starting": "its engine is starting; requests wait for it",
    "recovering": "its engine is being replaced; requests wait for the next one",
    "draining": "it finishes its last requests, and then ends",
}
STATES = {"ok": State.READY, "starting": State.STARTING, "recovering": State.BUSY, "draining": State.BUSY}


class MlxService:
    """Describes the gateway to the supervisor, and asks the gateway how it and its engine are."""

    def __init__(
        self,
        config: Config,
        session: aiohttp.ClientSession,
        command: tuple[str, ...] = GATEWAY,
        inherited: InheritedSockets | None = None,
        on_health: Callable[[Mapping[str, Any] | None], None] = lambda body: None,
    ) -> None:
        """Call `on_health` after each probe, with the gateway's answer or None."""
        self._config, self._session, self._command = config, session, command
        self._on_health = on_health
        self._url = f"http://127.0.0.1:{config.mlx.port}/health"
        self.port = config.mlx.port
        self.sockets = GatewaySockets(config, inherited or InheritedSockets(), self._digest)
        self._hands_over: int | None = None  # the PID of the last gateway that said so
        self._requests: int | None = None
        self._served: object = None  # the PID of the last gateway that said that it served a client
        self.write_failures: dict[str, Any] = {}  # by process, as the gateway reported them last
        self._engine = (0.0, ServiceStatus(State.STOPPED, detail="the gateway has not been asked yet"))

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
            env=child_environment.common(self._config),
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
        """Return the variable with what a gateway that is launched now runs."""
        return {digests.DIGEST_VARIABLE: digests.digest(MLX_SERVER, settings_text(self._config))}

    async def can_hand_over(self, gateway: ChildStatus) -> bool:
        """Return whether the gateway can hand over, by its last answer if it gives none now.

        A successor needs the sockets beforehand. An agent that has adopted the gateway from one that died, or
        whose settings name another port, does not have them: then the gateway is stopped and started.
        """
        if gateway.state not in UP or gateway.process_pid is None or not self.sockets.held:
            return False
        await self.probe(gateway.process_pid)
        return self._hands_over == gateway.process_pid

    @property
    def requests(self) -> int | None:
        """Return how many requests the gateway had at its last answer; None if it did not say."""
        return self._requests

    def on_gateway_event(self, event: Event) -> None:
        """Take note that a gateway has served a client, if `event` says so."""
        if event.event == FIRST_DELIVERY:
            self._served = event.fields.get("pid")

    def has_served(self, pid: int) -> bool:
        """Return whether the gateway with this PID is known to have given a client a token or an answer."""
        return self._served == pid

    async def probe(self, pid: int) -> ProbeResult:
        """Return whether the gateway answers; `pid` is its process."""
        try:
            reply = await http_probe.get(self._session, self._url)
            self._report_health(reply.fields)
            if reply.fields.get("pid") == pid:
                self._hands_over = pid if reply.fields.get("hands_over") is True else None
                self._requests = _requests(reply)
            return judge_gateway(reply, pid)
        except NoAnswer as error:
            self._report_health(None)
            return ProbeResult(False, f"{self._url}: {error}", answered=False)

    def _report_health(self, body: Mapping[str, Any] | None) -> None:
        """Report the gateway's answer. Whatever fails there is no fault of the gateway's."""
        try:
            self._on_health(body)
        except Exception:
            log.exception("an answer of the MLX server could not be recorded")

    async def engine_status(self, fresh: bool = False) -> ServiceStatus | None:
        """Return the engine's status from the gateway's answer, which may be CACHE_S old unless `fresh`.

        None if the gateway does not answer.
        """
        asked_at, status = self._engine
        if fresh or time.monotonic() - asked_at > CACHE_S:
            try:
                reply = await http_probe.get(self._session, self._url, timeout_s=STATUS_TIMEOUT_S)
            except NoAnswer:
                return None
            status = read_engine_status(reply)
            self.write_failures = read_write_failures(reply)
            self._engine = (time.monotonic(), status)
        return status


def settings_text(config: Config) -> str:
    """Return the settings that the gateway and its engine read, as text."""
    return config.model_dump_json(include={"mlx", "models", "supervision"})


def _handover_policy(config: Config) -> HandoverPolicy:
    """Return how long a handover may take. Without a log of answers, the old gateway first finishes them."""
    drain_s = 0.0 if config.mlx.keep_answers_s else config.mlx.drain_s
    return HandoverPolicy(
        ready_timeout_s=READY_TIMEOUT_S,
        release_timeout_s=RELEASE_TIMEOUT_S + drain_s,
        linger_s=LINGER_S,
        stop_timeout_s=config.supervision.stop_s,
    )


def judge_gateway(reply: Reply, pid: int) -> ProbeResult:
    """Return what an answer to GET /health says about the gateway with this PID.

    Another gateway that holds the port answers in its place. It is no sign of life of this one.
    """
    answering = reply.fields.get("pid", pid)
    if answering != pid:
        return ProbeResult(False, f"another gateway (PID {answering}) answers on its port")
    status = str(reply.fields.get("status", ""))
    if status == "failed":
        # The gateway works and has given its engine up. Restarting it would bypass the engine's breaker.
        detail = _engine_detail(reply) or "the engine was given up"
        return ProbeResult(True, detail, State.DEGRADED, requests=_requests(reply))
    if status not in STATES:
        return ProbeResult(False, f"/health answered {reply.status} with an unknown status")
    return ProbeResult(status == "ok", DETAILS[status], STATES[status], requests=_requests(reply))


def read_engine_status(reply: Reply) -> ServiceStatus:
    """Return the engine's status from the gateway's answer to GET /health."""
    engine = reply.fields.get("engine")
    if not isinstance(engine, dict):
        return ServiceStatus(State.STOPPED, detail="the gateway's answer has no engine")
    return ServiceStatus.of_child(
        _engine_child(engine),
        last_crash=engine.get("last_crash"),
        models=(reply.fields.get("models") or {}).get("loaded", []),
        requests=reply.fields.get("requests") or {},
    )


def _engine_child(engine: Mapping[str, Any]) -> ChildStatus:
    """Return the engine as its supervisor in the gateway reports it; an unknown state counts as degraded."""
    name, pid = str(engine.get("state") or "stopped"), engine.get("pid")
    trial_in_s = engine.get("next_trial_in_s")
    is_known = name in set(State)
    state = State(name) if is_known else State.DEGRADED
    detail = str(engine.get("detail") or "") if is_known else f"its gateway reports an unknown state: {name}"
    breaker = "open" if state is State.OPEN else "closed"
    return ChildStatus(
        state=state,
        process_pid=pid if isinstance(pid, int) else None,
        restart_count=_number(engine.get("restarts")),
        health_check_failures=_number(engine.get("health_check_failures")),
        circuit_breaker_state=str(engine.get("circuit_breaker_state") or breaker),
        uptime_s=float(engine.get("uptime_s") or 0.0),
        detail=detail,
        cause=str(engine.get("cause") or ""),
        last_end=str(engine.get("last_end") or ""),
        next_trial_in_s=trial_in_s if isinstance(trial_in_s, (int, float)) else None,
    )


def read_write_failures(reply: Reply) -> dict[str, Any]:
    """Return what gateway and engine could not write, by process; empty if the answer does not say."""
    failures = reply.fields.get("write_failures")
    return failures if isinstance(failures, dict) else {}


def _engine_detail(reply: Reply) -> str:
    engine = reply.fields.get("engine")
    return str(engine.get("detail") or "") if isinstance(engine, dict) else ""


def _requests(reply: Reply) -> int | None:
    """Return how many requests the gateway runs, queues or keeps for its next engine."""
    counts = reply.fields.get("requests")
    if not isinstance(counts, dict):
        return None
    return sum(_number(counts.get(phase)) for phase in ("running", "queued", "parked"))


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
