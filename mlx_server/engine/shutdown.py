"""The six stages of a graceful shutdown (R2.8), in this order, each logged with its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx

from mlx_server.engine.log import log_event
from mlx_server.engine.scheduler import Scheduler

Stage = tuple[str, Callable[[], object]]


def stages(scheduler: Scheduler, drain_s: float) -> list[Stage]:
    """The stages, by name."""
    return [
        ("stop_scheduler", scheduler.refuse_new),
        ("drain", lambda: scheduler.drain(drain_s)),
        ("persist_caches", scheduler.persist_caches),
        ("shut_engine_down", scheduler.close_batches),
        ("unload_models", scheduler.unload_all),
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
