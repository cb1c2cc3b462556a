"""Read the states of the gateway and its engine from the gateway's answers to GET /health. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from host_agent.services.http_probe import Reply
from host_agent.services.service_status import ServiceStatus
from vestal.supervision import UP, ChildStatus, ProbeResult, State

STATES = {"ok": State.READY, "starting": State.STARTING, "recovering": State.BUSY, "draining": State.BUSY}
DETAILS = {
    "ok": "",
    "starting": "its engine is starting; requests wait for it",
    "recovering": "its engine is being replaced; requests wait for the next one",
    "draining": "it finishes its last requests, and then ends",
}


@dataclass(frozen=True)
class GatewayAnswer:
    """One answer of the gateway to GET /health, and the engine's status that was read from it."""

    reply: Reply
    engine: ServiceStatus


def judge_gateway(reply: Reply, pid: int) -> ProbeResult:
    """Return what an answer to GET /health says about the gateway with this PID.

    An answer with another PID is from another gateway that holds the port, so the gateway `pid` counts as
    failed.
    """
    answering = reply.fields.get("pid", pid)
    if answering != pid:
        return ProbeResult(False, f"another gateway (PID {answering}) answers on its port")
    status = str(reply.fields.get("status", ""))
    if status == "failed":
        # The gateway works but has given up its engine. Restarting it would bypass the engine's breaker.
        detail = _engine_detail(reply) or "the engine was given up"
        return ProbeResult(True, detail, State.DEGRADED, requests=request_count(reply))
    if status not in STATES:
        return ProbeResult(False, f"/health answered {reply.status} with an unknown status")
    return ProbeResult(status == "ok", DETAILS[status], STATES[status], requests=request_count(reply))


def as_it_answers(gateway: ChildStatus, reply: Reply) -> ChildStatus:
    """Return `gateway`, the supervisor's status of the gateway, with `state` and `detail` replaced by those
    in `reply`, the newest answer to GET /health. While the gateway's engine starts, `state` is BUSY.

    Return `gateway` unchanged if the gateway is not up or its health checks fail, or if `reply` is from
    another process or has no known status.
    """
    if gateway.state not in UP or gateway.process_pid is None or gateway.health_check_failures:
        return gateway
    said = judge_gateway(reply, gateway.process_pid)
    if not said.alive:
        return gateway
    state = State.BUSY if said.state is State.STARTING else said.state or State.READY
    return replace(gateway, state=state, detail=said.detail)


def read_engine_status(reply: Reply) -> ServiceStatus:
    """Return the engine's status from the gateway's answer to GET /health; `stopped` if the answer has no
    engine.
    """
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
    """Return the engine's status as the gateway reports it; an unknown state counts as degraded."""
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
    """Return the field `write_failures` of the gateway's answer to GET /health, or {} if the answer has none.
    The field has the failed writes of the gateway and its engine, as {process: {kind of data, such as `log`:
    facts}}; the facts are `failed` (how many writes), `failing_since` and `error`.
    """
    failures = reply.fields.get("write_failures")
    return failures if isinstance(failures, dict) else {}


def _engine_detail(reply: Reply) -> str:
    engine = reply.fields.get("engine")
    return str(engine.get("detail") or "") if isinstance(engine, dict) else ""


def request_count(reply: Reply) -> int | None:
    """Return how many requests the gateway runs, queues or keeps for its next engine; None if unknown."""
    counts = reply.fields.get("requests")
    if not isinstance(counts, dict):
        return None
    return sum(_number(counts.get(phase)) for phase in ("running", "queued", "parked"))


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
