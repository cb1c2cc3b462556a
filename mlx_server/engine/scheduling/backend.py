"""The scheduler's dependencies on MLX, the disk and the machine, which tests replace by fakes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from mlx_server.engine.background_workers import BackgroundWorkers
from mlx_server.engine.embeddings.encoder import Encoder
from mlx_server.engine.kv.request_caches import quantization_obstacle
from mlx_server.engine.log import log_event
from mlx_server.engine.memory import readings
from mlx_server.engine.memory.guard import MemoryGuard
from mlx_server.engine.models.loading import LanguageModel, Loader, Weights, load
from mlx_server.engine.prompt_cache.model_cache import ModelCache
from mlx_server.engine.prompt_cache.store import BlockStore
from mlx_server.engine.scheduling.request_table import EngineRequests
from mlx_server.engine.scheduling.runners.embedding_runner import EmbeddingRunner
from mlx_server.engine.scheduling.runners.runner import Runner
from mlx_server.engine.scheduling.runners.text_runner import TextRunner
from mlx_server.engine.settings import EngineSettings
from mlx_server.memory_forecast.kv_quantization import KvQuantization
from mlx_server.model_store import ModelEntry

MakeRunner = Callable[[ModelEntry, Weights, EngineRequests], Runner]


@dataclass(frozen=True)
class Backend:
    """The scheduler's dependencies. `load` reads a model slice by slice, `make_runner` makes the runner of a
    loaded one.
    """

    prompt_cache: BlockStore
    guard: MemoryGuard
    load: Callable[[ModelEntry], Loader]
    make_runner: MakeRunner
    release_memory: Callable[[], None]
    active_bytes: Callable[[], int]
    """Returns the bytes that MLX's arrays hold."""


def open_backend(settings: EngineSettings, workers: BackgroundWorkers) -> Backend:
    """Open the prompt cache, and return the real backend."""
    store = settings.cache.open()
    guard = readings.memory_guard(
        settings.memory_limit_bytes,
        settings.batch.prefill_step_tokens,
        lambda: store.ram_bytes,
        settings.kv_of,
    )

    def make_runner(entry: ModelEntry, weights: Weights, requests: EngineRequests) -> Runner:
        if isinstance(weights, Encoder):
            return EmbeddingRunner(entry.name, requests, weights, workers.new_tokenizer())
        tags = {"model": entry.name, "quantization": entry.quantization}
        try:
            kv = _usable_quantization(entry, weights, settings, guard)
            cache = ModelCache(store, weights.identity, tags, kv)
            return TextRunner(
                entry.name,
                requests,
                weights,
                settings.batch,
                workers,
                cache,
                guard,
                kv,
                settings.max_repeated_tokens,
            )
        except BaseException:
            weights.close()
            raise

    return Backend(store, guard, load, make_runner, release_memory, mx.get_active_memory)


def release_memory() -> None:
    """Collect garbage and return MLX's unused memory to the system."""
    gc.collect()
    mx.clear_cache()


def _usable_quantization(
    entry: ModelEntry, weights: LanguageModel, settings: EngineSettings, guard: MemoryGuard
) -> KvQuantization | None:
    """Return the configured KV quantization, or None if the model cannot work with it."""
    wanted = settings.kv_of(entry.name)
    if wanted is None or (reason := quantization_obstacle(weights.model, wanted)) is None:
        return wanted
    log_event("kv_not_quantized", cause=reason, model=entry.name, bits=wanted.bits)
    guard.cannot_quantize_kv(entry)
    return None
