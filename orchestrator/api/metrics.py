"""The figures of GET /metrics, in Prometheus's text format."""

from __future__ import annotations

import asyncio

from orchestrator import memory_guard
from orchestrator.container import Container
from orchestrator.cycle_runner import CycleRunner
from orchestrator.llm.breaker import BackendBreakerState

PREFIX = "vestal_orchestrator_"


async def render(parts: Container, runner: CycleRunner, uptime_s: float) -> str:
    counts = await asyncio.to_thread(parts.knowledge.counts)
    reading = memory_guard.read()
    lines = [
        *_metric("uptime_seconds", "gauge", {"": uptime_s}),
        *_metric("cycles_total", "counter", {"": runner.cycles}),
        *_metric("health_checks_total", "counter", {"": parts.board.checks}),
        *_metric("recovery_posts_total", "counter", {"": parts.webhook.posted}),
        *_metric(
            "backend_healthy",
            "gauge",
            {f'{{backend="{b.name}"}}': int(b.healthy) for b in parts.board.backends if b.used},
        ),
        *_metric(
            "backend_absent",
            "gauge",
            {f'{{backend="{b.name}"}}': int(b.absent) for b in parts.board.backends if b.used},
        ),
        *_metric(
            "backend_breaker_open",
            "gauge",
            {
                f'{{backend="{b.name}"}}': int(
                    parts.board.breakers[b.name].state is not BackendBreakerState.CLOSED
                )
                for b in parts.board.backends
                if b.used
            },
        ),
        *_metric(
            "backend_calls_in_flight",
            "gauge",
            {
                f'{{backend="{b.name}"}}': parts.board.in_flight[b.name]
                for b in parts.board.backends
                if b.used
            },
        ),
        *_metric("tasks_unfinished", "gauge", {"": await parts.tasks.waiting()}),
        *_metric("knowledge_files", "gauge", {"": counts["files"]}),
        *_metric("knowledge_chunks", "gauge", {"": counts["chunks"]}),
    ]
    if runner.last:
        lines += _metric("last_cycle_duration_seconds", "gauge", {"": runner.last["duration_s"]})
        lines += _metric("last_cycle_timestamp_seconds", "gauge", {"": runner.last["finished_at"]})
    if reading:
        lines += _metric("memory_used_bytes", "gauge", {"": reading.used_bytes})
        if reading.limit_bytes:
            lines += _metric("memory_limit_bytes", "gauge", {"": reading.limit_bytes})
    return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, samples: dict[str, float]) -> list[str]:
    return [
        f"# TYPE {PREFIX}{name} {kind}",
        *(f"{PREFIX}{name}{label} {value}" for label, value in samples.items()),
    ]
