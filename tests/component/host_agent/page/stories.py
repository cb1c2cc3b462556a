"""Fake data of an agent: a healthy machine, one with faults, incidents, and the history of figures."""

from __future__ import annotations

import math
import time
from typing import Any

GIB = 2**30
STEPS_S = {"hour": 15, "day": 300, "week": 1800}
POINTS = {"hour": 240, "day": 288, "week": 336}


def service(state: str = "ready", parent: str | None = "agent", **changes: Any) -> dict[str, Any]:
    """Return one service in the form of GET /status."""
    return {
        "state": state,
        "process_pid": 4711,
        "restart_count": 0,
        "health_check_failures": 0,
        "circuit_breaker_state": "closed",
        "uptime_s": 3725.0,
        "detail": "",
        "expected": True,
        "parent": parent,
        "next_trial_in_s": None,
        "last_failure": None,
    } | changes


def status(**services: dict[str, Any]) -> dict[str, Any]:
    """Return the body of GET /status of a healthy machine, with some services replaced."""
    return {
        "verdict": "All services are healthy.",
        "services": {
            "agent": service(parent=None, detail="launchd restarts it", uptime_s=90061.0),
            "mlx_server": service(process_pid=4712),
            "mlx_engine": service("busy", "mlx_server", process_pid=4713, uptime_s=59.0),
            "ollama": service(process_pid=812, detail="started by Ollama.app"),
            "docker": service(process_pid=None, detail="OrbStack"),
            "orchestrator": service(parent="docker", process_pid=None),
            "nightly": service(parent="docker", process_pid=None),
        }
        | services,
        "host": {
            "memory": {
                "total_bytes": 32 * GIB,
                "available_bytes": 13 * GIB,
                "swap_total_bytes": 4 * GIB,
                "swap_used_bytes": GIB // 2,
            },
            "wired_fraction": 0.31,
            "warning": "",
            "sleep": {"slept_s": 5400},
            "disk": {"message": "", "journal": ""},
        },
        "recovery": {
            "running": None,
            "last": {
                "finished_at": time.time() - 95,
                "reason": "schedule",
                "healthy": True,
                "found": [],
                "done": [],
                "left": [],
            },
            "passes": 12,
            "next_in_s": 205.0,
        },
        "healthy": True,
    }


def troubled() -> dict[str, Any]:
    """Return the status of a machine whose engine has an open breaker and whose Docker is absent."""
    engine = service(
        "open",
        "mlx_server",
        process_pid=None,
        restart_count=5,
        uptime_s=0.0,
        circuit_breaker_state="open",
        next_trial_in_s=41.5,
        detail="killed by SIGKILL five times within 80 s",
        last_failure={
            "ts": time.time() - 18,
            "sentence": "The engine was killed by SIGKILL; its sender is unknown.",
        },
    )
    words = (
        "Docker is not running: start OrbStack, Docker Desktop or colima, or set orchestrator.mode to native."
    )
    docker = service("degraded", process_pid=None, uptime_s=0.0, detail=words)
    found = status(mlx_engine=engine, docker=docker, orchestrator=service("stopped", "docker", uptime_s=0.0))
    found["host"]["memory"]["available_bytes"] = GIB
    found["host"]["warning"] = "Only 1.0 GiB of memory is available; a model of 4.1 GiB does not fit."
    found["recovery"]["last"] |= {
        "healthy": False,
        "found": ["mlx_engine does not run"],
        "done": ["restarted the MLX server"],
        "left": ["Docker is not running"],
    }
    return found | {
        "verdict": "The engine is down and is tried again soon; Docker is not running.",
        "healthy": False,
    }


def incident(
    number: int = 1, *, began_s_ago: float = 600.0, lasted_s: float | None = 79.0, **changes: Any
) -> dict[str, Any]:
    """Return one incident, which is still open if `lasted_s` is None."""
    began_at = time.time() - began_s_ago
    return {
        "id": number,
        "began_at": began_at,
        "ended_at": None if lasted_s is None else began_at + lasted_s,
        "open": lasted_s is None,
        "duration_s": began_s_ago if lasted_s is None else lasted_s,
        "severity": "fault",
        "services": ["mlx_engine"],
        "title": "The engine was killed five times",
        "sentence": "The engine was killed five times (SIGKILL, sender unknown); the breaker opened for "
        "60 s; 24 requests waited, none was lost.",
        "causes": ["SIGKILL by an unknown sender, five times within 80 s."],
        "done": [
            "The engine was started five times.",
            "The breaker opened for 60 s, and closed after a trial.",
        ],
        "restarts": 5,
        "requests": {"waited": 24, "continued": 24, "lost": 0},
        "first_seq": 100 * number,
        "last_seq": 100 * number + 9,
    } | changes


def entries(number: int = 1) -> list[dict[str, Any]]:
    """Return the raw journal lines of an incident."""
    now = time.time()
    return [
        {"seq": 100 * number, "ts": now - 600, "component": "mlx_engine", "event": "child_exited",
         "cause": "killed by SIGKILL", "fields": {"pid": 4713, "signal": 9}},
        {"seq": 100 * number + 1, "ts": now - 599, "component": "mlx_engine", "event": "child_ready",
         "cause": "", "fields": {"pid": 4714}},
    ]  # fmt: skip


def history(name: str = "hour") -> dict[str, Any]:
    """Return the body of GET /history: a day of waves with a gap in the middle, and one mark."""
    step_s, points = STEPS_S[name], POINTS[name]
    start = int(time.time()) - step_s * (points - 1)
    times = [start + step_s * index for index in range(points)]
    gap = range(points // 3, points // 3 + points // 20)

    def series(low: float, high: float, waves: float = 3.0) -> list[float | None]:
        middle, height = (low + high) / 2, (high - low) / 2
        wave = lambda index: middle + height * math.sin(waves * 2 * math.pi * index / points)  # noqa: E731
        return [None if index in gap else round(wave(index), 4) for index in range(points)]

    flat = lambda value: [None if index in gap else value for index in range(points)]  # noqa: E731
    return {
        "range": name,
        "step_s": step_s,
        "times": times,
        "series": {
            "weights_bytes": flat(4 * GIB),
            "kv_bytes": series(0.2 * GIB, 3 * GIB),
            "prompt_cache_bytes": series(0.5 * GIB, 2 * GIB, 1.0),
            "in_use_bytes": series(5 * GIB, 9 * GIB),
            "memory_limit_bytes": flat(20 * GIB),
            "host_available_bytes": series(8 * GIB, 14 * GIB, 1.5),
            "host_total_bytes": flat(32 * GIB),
            "tokens_in_per_s": series(0, 900, 4.0),
            "tokens_out_per_s": series(0, 64, 5.0),
            "first_token_s": series(0.2, 1.4, 2.0),
            "queued": series(0, 6, 4.0),
            "running": series(0, 4, 4.0),
            "parked": series(0, 1, 2.0),
            "restarts": [None if i in gap else 1 if i == points // 2 else 0 for i in range(points)],
            "cache_hit_fraction": series(0.4, 0.95, 1.0),
        },
        "marks": [{"ts": times[points // 2], "service": "mlx_engine", "title": "The engine was killed"}],
    }


def sample(**values: float | None) -> dict[str, Any]:
    """Return the data of one `sample` event with the present time."""
    known = {name: next(v for v in reversed(s) if v is not None) for name, s in history()["series"].items()}
    return {"time": time.time(), "values": known | values}
