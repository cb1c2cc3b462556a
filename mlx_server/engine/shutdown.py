"""The six stages of a graceful shutdown (R2.8), in this order, each logged with its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx

from mlx_server.engine.log import log_event
from mlx_server.engine.scheduling.loaded_models import release_memory
from mlx_server.engine.scheduling.scheduler import Scheduler
from mlx_server.protocol import Failed

Stage = tuple[str, Callable[[], object]]


def stages(scheduler: Scheduler, drain_s: float, persist_s: float) -> list[Stage]:
    """The stages, by name. `persist_s` is what the disk is given; what is not written is computed again."""
    return [
        ("stop_scheduler", lambda: refuse_what_waits(scheduler)),
        ("drain", lambda: scheduler.drain(drain_s)),
        ("persist_caches", lambda: persist_caches(scheduler, persist_s)),
        ("shut_engine_down", lambda: close_batches(scheduler)),
        ("unload_models", lambda: unload_all(scheduler)),
        ("release_gpu_buffers", mx.clear_cache),
    ]


def run(to_do: Sequence[Stage]) -> None:
    """Run every stage, whatever happens in one of them."""
    for name, stage in to_do:
        started = time.monotonic()
        fields: dict[str, Any] = {}
        try:
            result = stage()
        except Exception as error:  # the next stages free memory: they must have their turn
            fields["error"] = f"{type(error).__name__}: {error}"
        else:
            if isinstance(result, int):
                fields["left" if name == "drain" else "count"] = result
        log_event("shutdown_stage_done", stage=name, seconds=round(time.monotonic() - started, 3), **fields)


def refuse_what_waits(scheduler: Scheduler) -> None:
    """Nothing new has been taken up since the word came; what waits for a model or memory is refused too."""
    serving = scheduler.serving
    for op in [*serving.loads.abandon(), *serving.starts.backlog.clear()]:
        serving.take(op)
    scheduler.publish()


def persist_caches(scheduler: Scheduler, timeout_s: float) -> int:
    """What was computed for those in flight goes to the cache, and that to the disk; blocks written."""
    until = time.monotonic() + timeout_s
    for held in scheduler.serving.models.all():
        held.runner.keep_all()
    return scheduler.serving.store.persist(max(until - time.monotonic(), 0.0))


def close_batches(scheduler: Scheduler) -> None:
    """End what is left, telling the gateway that it may send it again elsewhere."""
    serving = scheduler.serving
    message = "The engine stopped before the request was done; the request can be sent again."
    for held in serving.models.all():
        for request in held.runner.requests():
            serving.out.append(Failed(request, "engine_unavailable", message, retryable=True))
        held.runner.close()
    scheduler.publish()


def unload_all(scheduler: Scheduler) -> None:
    """Drop every model."""
    for held in scheduler.serving.models.all():
        scheduler.serving.models.drop(held)
    release_memory()
