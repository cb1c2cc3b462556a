"""Collect the metrics of GET /metrics: uptime, the orchestrator's cycles, backends, tasks, knowledge and
memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from orchestrator import memory_guard
from orchestrator.container import Container
from orchestrator.cycle_runner import CycleRunner
from orchestrator.llm.breaker import BackendBreakerState
from vestal.web.metrics import CONTENT_TYPE, Metric, counter, gauge, render

__all__ = ["CONTENT_TYPE", "text"]
PREFIX = "vestal_orchestrator_"


async def text(container: Container, runner: CycleRunner, uptime_s: float) -> str:
    """Return the current metrics as Prometheus text."""
    knowledge = await asyncio.to_thread(container.knowledge.counts)
    unfinished = await container.tasks.waiting()
    return render(
        [
            *_service(container, runner, uptime_s),
            *_backends(container),
            gauge(f"{PREFIX}tasks_unfinished", "Tasks that are queued or running", unfinished),
            gauge(f"{PREFIX}knowledge_files", "Indexed files", knowledge["files"]),
            gauge(f"{PREFIX}knowledge_chunks", "Indexed passages", knowledge["chunks"]),
            *_last_cycle(runner),
            *_memory(),
        ]
    )


def _service(container: Container, runner: CycleRunner, uptime_s: float) -> Iterator[Metric]:
    checks, posts = container.board.checks, container.webhook.posted
    yield gauge(f"{PREFIX}uptime_seconds", "Time since the service's start", uptime_s)
    yield counter(f"{PREFIX}cycles_total", "Finished cycles", runner.cycles)
    yield counter(f"{PREFIX}health_checks_total", "Health checks of the backends", checks)
    yield counter(f"{PREFIX}recovery_posts_total", "Requests for a recovery pass", posts)


def _backends(container: Container) -> Iterator[Metric]:
    """Yield the metrics of each backend that is in use: health, breaker state and calls in flight."""
    board = container.board
    used = [backend for backend in board.backends if backend.used]
    healthy = {b.name: int(b.healthy) for b in used}
    absent = {b.name: int(b.absent) for b in used}
    refused = {b.name: int(board.breakers[b.name].state is not BackendBreakerState.CLOSED) for b in used}
    in_flight = {b.name: board.in_flight[b.name] for b in used}
    yield _by_backend("backend_healthy", "Whether the backend passed its last health check", healthy)
    yield _by_backend("backend_absent", "Whether the backend has never been there", absent)
    yield _by_backend("backend_breaker_open", "Whether the backend's circuit breaker is not closed", refused)
    yield _by_backend("backend_calls_in_flight", "Calls to the backend that run now", in_flight)


def _by_backend(name: str, about: str, values: Mapping[str, float]) -> Metric:
    return gauge(PREFIX + name, about, {(name,): value for name, value in values.items()}, ("backend",))


def _last_cycle(runner: CycleRunner) -> Iterator[Metric]:
    if last := runner.last:
        duration, finished = last["duration_s"], last["finished_at"]
        yield gauge(f"{PREFIX}last_cycle_duration_seconds", "Duration of the last cycle", duration)
        yield gauge(f"{PREFIX}last_cycle_timestamp_seconds", "When the last cycle finished", finished)


def _memory() -> Iterator[Metric]:
    if reading := memory_guard.read():
        yield gauge(f"{PREFIX}memory_used_bytes", "Memory in use in this container", reading.used_bytes)
        if reading.limit_bytes:
            yield gauge(f"{PREFIX}memory_limit_bytes", "This container's memory limit", reading.limit_bytes)
