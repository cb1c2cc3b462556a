"""Read the ledger's inputs: the memory of the machine and the process, MLX's counters, and a
model's files.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import psutil

from mlx_server.engine.device import computes_on_gpu
from mlx_server.engine.log import log_event
from mlx_server.engine.memory.guard import MemoryGuard
from mlx_server.engine.memory.ledger import GIB, MemoryReading
from mlx_server.memory_forecast.fit import default_limit_bytes
from mlx_server.memory_forecast.kv_quantization import KvQuantizationOf, never_quantized
from mlx_server.memory_forecast.weights import Arithmetic
from mlx_server.model_store.forecasts import files_of
from vestal.config.units import format_size

_CGROUP = Path("/sys/fs/cgroup")
_MOST_CACHED_ON_CPU = 256 << 20
"""How many bytes of free memory MLX may hold for reuse on a CPU (see `set_cache_limit`)."""
_process = psutil.Process(os.getpid())


def read(prompt_cache_bytes: int = 0, ready_bytes: int = 0) -> MemoryReading:
    """Return the current figures of memory, in bytes. In a container, the container's limit counts as the
    machine's memory. `prompt_cache_bytes` and `ready_bytes`, which are copied into the result, are what the
    prompt cache holds in plain memory and in MLX's.
    """
    virtual = psutil.virtual_memory()
    total, available = virtual.total, virtual.available
    if (bound := _cgroup()) is not None:
        limit, used = bound
        total, available = min(total, limit), min(available, max(limit - used, 0))
    return MemoryReading(
        total_bytes=total,
        available_bytes=available,
        footprint_bytes=_process.memory_info().rss,
        active_bytes=mx.get_active_memory(),
        cached_bytes=mx.get_cache_memory(),
        prompt_cache_bytes=prompt_cache_bytes,
        ready_bytes=ready_bytes,
        wired_bytes=int(getattr(virtual, "wired", 0)) if sys.platform == "darwin" else None,
    )


def limit_bytes(configured: int | None) -> int:
    """Return how many bytes the engine may take: `configured`, or `default_limit_bytes` if that is None."""
    if configured is not None:
        return configured
    return default_limit_bytes(read().total_bytes, _working_set_bytes() if mx.metal.is_available() else None)


def arithmetic() -> Arithmetic:
    """Return how this build of MLX stores weights and computes attention, for the forecasts of memory."""
    on_gpu = computes_on_gpu()
    return Arithmetic(dense_float32=not on_gpu, fused_attention=on_gpu)


def memory_guard(
    configured_limit_bytes: int | None,
    step_tokens: int,
    prompt_cache_bytes: Callable[[], tuple[int, int]] = lambda: (0, 0),
    kv_of: KvQuantizationOf = never_quantized,
) -> MemoryGuard:
    """Return the guard for this machine's memory. `step_tokens` is how many tokens of a prompt a step
    processes.

    `prompt_cache_bytes` returns how many bytes the prompt cache holds in plain memory and in MLX's; these are
    freed before models are unloaded. `kv_of` returns how the keys and values of a model are quantized.
    """
    limit = limit_bytes(configured_limit_bytes)
    return MemoryGuard(limit, arithmetic(), step_tokens, lambda: read(*prompt_cache_bytes()), files_of, kv_of)


def set_wired_limit(configured_bytes: int | None) -> None:
    """Set Metal's limit of wired (not pageable) memory to `configured_bytes`. None leaves the limit
    unchanged, because a raised limit can cause kernel panics (ml-explore/mlx 3186). MLX raises ValueError for
    a limit above Metal's recommended working set, so a larger value is lowered to that, which is logged.
    """
    if configured_bytes is None or not mx.metal.is_available():
        return
    most_bytes = _working_set_bytes()
    if most_bytes is not None and configured_bytes > most_bytes:
        cause = (
            f"mlx.wired_limit is {format_size(configured_bytes)}, but Metal wires at most "
            f"{format_size(most_bytes)} on this Mac; the system setting iogpu.wired_limit_mb raises that."
        )
        log_event("wired_limit_lowered", cause=cause, configured=configured_bytes, used=most_bytes)
        configured_bytes = most_bytes
    mx.set_wired_limit(configured_bytes)


def set_cache_limit(memory_limit_bytes: int) -> None:
    """Limit the free memory that MLX holds for reuse: to a GiB on a GPU and 256 MiB on a CPU, but at most a
    sixteenth of `memory_limit_bytes`, which is how much the whole engine may take.

    Without a limit, Metal's allocator keeps free buffers until they fill its working set. It reuses a buffer
    only for an array of nearly the same size, so each new shape of a batch adds buffers.

    On a CPU, MLX itself keeps at most 32 MB. Most arrays that are needed to read a prompt are larger, so the
    system has to provide new memory for them, and reading takes some 6 % longer. With a GiB, the reused
    buffers would rarely be in the processor's cache.
    """
    most = GIB if computes_on_gpu() else _MOST_CACHED_ON_CPU
    mx.set_cache_limit(min(most, memory_limit_bytes // 16))


def _working_set_bytes() -> int | None:
    """Return how much memory Metal recommends that a program uses; None if MLX does not report it."""
    size = mx.device_info().get("max_recommended_working_set_size")
    return int(size) if size else None


def _cgroup() -> tuple[int, int] | None:
    """Return the memory limit and the used memory of this process's cgroup (version 2), in bytes; None if
    there is no limit.
    """
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((_CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return int(limit), used - int(stat.get("inactive_file", 0))  # the kernel reclaims cached files
    except (OSError, ValueError):
        return None
