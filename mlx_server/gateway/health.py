"""GET /health and GET /metrics: the state of the engine and of the requests, without waiting for either."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from msgspec.structs import asdict
from starlette.responses import PlainTextResponse, Response

from mlx_server.gateway.engine_process.supervisor import EngineSupervisor
from mlx_server.gateway.errors import Unavailable
from mlx_server.gateway.json_text import JsonResponse
from mlx_server.gateway.requests.dispatcher import Dispatcher
from mlx_server.gateway.requests.table.request_lifecycle import RequestPhase
from mlx_server.gateway.telemetry import Telemetry
from vestal.best_effort.failures import FAILURES
from vestal.supervision import State
from vestal.web.http_error import HttpError

SERVED = frozenset({"ok", "starting", "recovering"})
"""Values of `status` with which a request that is sent at once will be served, perhaps after a wait."""
JSON: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}


def router(engine: EngineSupervisor, dispatcher: Dispatcher, telemetry: Telemetry) -> APIRouter:
    routes = APIRouter()

    @routes.head("/health", include_in_schema=False)
    @routes.get("/health", responses={503: {"content": JSON, "description": "Nothing would be served now"}})
    async def health(http: Request) -> Response:
        body = report(engine, dispatcher, telemetry)
        refusal = refusal_now(body["status"], dispatcher)
        return JsonResponse(body, refusal.status, refusal.headers()) if refusal else JsonResponse(body)

    @routes.get("/metrics", response_class=PlainTextResponse)
    async def prometheus(http: Request) -> Response:
        from mlx_server.gateway import metrics  # at the first call: it takes over 1 MB of memory

        text = metrics.text(engine, dispatcher, telemetry)
        return Response(text, headers={"Content-Type": metrics.CONTENT_TYPE})

    return routes


def health_status(engine: EngineSupervisor, dispatcher: Dispatcher) -> str:
    """Return the gateway's status: ok, starting, recovering, draining or failed.

    While the circuit breaker is open, the status is `recovering` if a request sent at this moment would wait
    for the engine's next start (see `RequestTable.refusal`), and `failed` if that start comes too late for
    the request. It is `recovering` too if only a gateway of the newly installed program can go on.
    """
    if dispatcher.draining:
        return "draining"
    if engine.ready:
        return "ok"
    if engine.is_left_behind:
        return "recovering"
    status = engine.status()
    if status.state is State.FAILED or dispatcher.engine_too_late():
        return "failed"
    return "starting" if engine.last_crash is None and not status.restart_count else "recovering"


def refusal_now(status: str, dispatcher: Dispatcher) -> HttpError | None:
    """Return the error of a request that is sent while `health_status` is `status`; None if the request will
    be served. The response of GET /health has the HTTP status and the headers of this error, so that whoever
    asks learns from `Retry-After` when to ask again.
    """
    if status in SERVED:
        return None
    known = dispatcher.refusing or dispatcher.engine_too_late()
    return known or Unavailable("engine_unavailable", "No engine serves requests.")


def is_outdated(state: State, *, is_idle: bool) -> bool:
    """Return whether `state`, which the supervisor's last probe found, is out of date for an engine that is
    ready: the probe saw the engine starting, or saw it busy although it is idle now (`is_idle`).
    """
    return state is State.STARTING or (state is State.BUSY and is_idle)


def report(engine: EngineSupervisor, dispatcher: Dispatcher, telemetry: Telemetry) -> dict[str, Any]:
    """Return the body of GET /health. Its field `engine` includes the fields that the host agent's GET
    /status shows of every service.
    """
    child = engine.status()
    is_idle = not (dispatcher.count(RequestPhase.RUNNING) or engine.loading)
    if engine.ready and is_outdated(child.state, is_idle=is_idle):
        child = replace(child, state=State.READY, detail="")
    about = child.as_json() | {
        "pid": child.process_pid,
        "restarts": child.restart_count,
        "last_crash": engine.last_crash,
        "loading": engine.loading,
    }
    if engine.hello is not None:
        about |= {"mlx_version": engine.hello.mlx_version, "blas": engine.hello.blas}
    return {
        "status": health_status(engine, dispatcher),
        "pid": os.getpid(),
        "instance": telemetry.engine_events.instance,
        "hands_over": True,
        "engine": about,
        "models": {"loaded": dispatcher.loaded_models.names},
        "requests": {
            "running": dispatcher.count(RequestPhase.RUNNING),
            "queued": dispatcher.count(RequestPhase.QUEUED),
            "parked": dispatcher.count(RequestPhase.PARKED),
            "survived_crashes": telemetry.survived_crashes,
            "slots": dispatcher.max_running,
        },
        "totals": telemetry.totals(),
        "memory": _memory(engine),
        "prompt_cache": asdict(engine.report.prompt_cache),
        "write_failures": _write_failures(engine),
    }


def _write_failures(engine: EngineSupervisor) -> dict[str, Any]:
    """Return the failed writes as {process: {kind of data, such as `log`: facts}}. The facts are how many
    writes have failed, the last error, and since when writes have failed without a success in between.
    """
    dropped = engine.report.log_lines_dropped
    engine_log = {"log": {"failed": dropped, "failing_since": None, "error": ""}}
    return {"mlx_server": FAILURES.as_json(), "mlx_engine": engine_log if dropped else {}}


def _memory(engine: EngineSupervisor) -> dict[str, int]:
    """Return the engine's memory in bytes: its limit, how much is in use, and how that is divided among
    uses.
    """
    last = engine.report
    return {"limit_bytes": last.limit_bytes, "in_use_bytes": last.footprint_bytes, **asdict(last.memory)}
