"""The six stages of a graceful shutdown, in their order. Each is logged with the time it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx

from mlx_server.engine.log import log_event
from mlx_server.engine.scheduling.scheduler import Scheduler

Stage = tuple[str, Callable[[], int | None]]
"""A stage's name, and the function that does its work. The function returns a count for the log, or None."""


def stages(scheduler: Scheduler, drain_s: float, persist_s: float) -> list[Stage]:
    """Return the stages of a shutdown. The drain may take `drain_s` seconds, and writing the prompt cache to
    disk `persist_s` seconds.
    """
    return [
        ("stop_scheduler", scheduler.hand_back_waiting),
        ("drain", lambda: scheduler.drain(drain_s)),
        ("persist_caches", lambda: scheduler.persist_caches(persist_s)),
        ("shut_engine_down", scheduler.hand_back_running),
        ("unload_models", scheduler.unload_models),
        ("release_gpu_buffers", mx.clear_cache),
    ]


def run(stages: Sequence[Stage]) -> None:
    """Run all stages. If a stage fails, log that and continue, because later stages free memory."""
    for name, work in stages:
        started_s = time.monotonic()
        fields: dict[str, Any] = {}
        try:
            count = work()
        except Exception as error:
            fields["error"] = f"{type(error).__name__}: {error}"
        else:
            if count is not None:
                fields["left" if name == "drain" else "count"] = count
        seconds = round(time.monotonic() - started_s, 3)
        log_event("shutdown_stage_done", stage=name, seconds=seconds, **fields)
