"""The MLX server: the gateway as a child of the agent, and what it tells of its engine."""

import sys
import time

import aiohttp

from host_agent.services import MLX_SERVER, child_environment, http_probe
from host_agent.services.http_probe import NoAnswer, Reply
from host_agent.services.restart_policy import restart_policy
from host_agent.services.service_status import ServiceStatus
from vestal.config import Config
from vestal.supervision import ChildSpec, ProbeResult, State

GATEWAY = (sys.executable, "-m", "mlx_server.gateway")
SIX_STAGES_S = 20.0  # beside the drain: the engine's six stages (10 s and its kill), the connections
FRESH_S = 0.3  # several readers at once share one look at the engine
STATES = {"ok": State.READY, "starting": State.STARTING, "recovering": State.BUSY, "draining": State.BUSY}


class MlxService:
    """Knows how to start the gateway, how to ask it, and how to read its answers."""

    def __init__(
        self, config: Config, session: aiohttp.ClientSession, command: tuple[str, ...] = GATEWAY
    ) -> None:
        self._config, self._session, self._command = config, session, command
        self._url = f"http://127.0.0.1:{config.mlx.port}/health"
        self.port = config.mlx.port
        self._engine = (0.0, ServiceStatus(State.STOPPED, detail="the gateway has not been asked yet"))

    def spec(self) -> ChildSpec:
        home = self._config.home
        planned_stop_timeout_s = self._config.mlx.drain_s + SIX_STAGES_S
        return ChildSpec(
            name=MLX_SERVER,
            command=self._command,
            env=child_environment.common(self._config),
            log_path=home.logs / "mlx_server.log",
            pid_file=home.run / "mlx_server.json",
            ready=self.probe,
            health=self.probe,
            policy=restart_policy(
                self._config.supervision, start_timeout_s=180.0, planned_stop_timeout_s=planned_stop_timeout_s
            ),
        )

    async def probe(self, pid: int) -> ProbeResult:
        """Liveness of the gateway with this PID."""
        try:
            return judge(await http_probe.get(self._session, self._url))
        except NoAnswer as error:
            return ProbeResult(False, f"{self._url}: {error}")

    async def engine(self, fresh: bool = False) -> ServiceStatus:
        """The row of the engine, as its gateway tells it."""
        asked, row = self._engine
        if fresh or time.monotonic() - asked > FRESH_S:
            try:
                row = engine_row(await http_probe.get(self._session, self._url, timeout_s=1.0))
            except NoAnswer:
                return ServiceStatus(State.STOPPED, detail="its gateway does not answer")
            self._engine = (time.monotonic(), row)
        return row


def judge(reply: Reply) -> ProbeResult:
    """What the gateway's /health says about its life (design §3)."""
    told = str(reply.fields.get("status", ""))
    if told == "failed":
        # The gateway lives and answers; it has given its engine up. A restart would bypass that breaker.
        return ProbeResult(True, _why(reply) or "the engine was given up", State.DEGRADED)
    if told not in STATES:
        return ProbeResult(False, f"/health answered {reply.status} with no status that is known")
    return ProbeResult(told == "ok", "" if told == "ok" else told, STATES[told])


def engine_row(reply: Reply) -> ServiceStatus:
    """The engine's row from the gateway's /health."""
    engine = reply.fields.get("engine")
    if not isinstance(engine, dict):
        return ServiceStatus(State.STOPPED, detail="the gateway tells nothing of its engine")
    told = str(engine.get("state") or "stopped")
    state = State(told) if told in set(State) else State.DEGRADED
    pid = engine.get("pid")
    return ServiceStatus(
        state=state,
        process_pid=pid if isinstance(pid, int) else None,
        restart_count=_number(engine.get("restarts")),
        health_check_failures=_number(engine.get("health_check_failures")),
        circuit_breaker_state=str(engine.get("circuit_breaker_state") or "closed"),
        uptime_s=float(engine.get("uptime_s") or 0.0),
        detail=str(engine.get("detail") or ""),
        extra={
            "last_crash": engine.get("last_crash"),
            "models": (reply.fields.get("models") or {}).get("loaded", []),
            "requests": reply.fields.get("requests") or {},
        },
    )


def _why(reply: Reply) -> str:
    engine = reply.fields.get("engine")
    return str(engine.get("detail") or "") if isinstance(engine, dict) else ""


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
