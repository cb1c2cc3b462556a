"""The scheduler's dependencies on MLX, the disk and the machine, which tests replace by fakes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import mlx.core as mx

from mlx_server.engine.background_workers import BackgroundWorkers
from mlx_server.engine.embeddings.encoder import Encoder
from mlx_server.engine.generation.drafting.draft_counts import DraftCounts
from mlx_server.engine.kv.request_caches import quantization_obstacle
from mlx_server.engine.log import log_event
from mlx_server.engine.memory import readings
from mlx_server.engine.memory.guard import MemoryGuard
from mlx_server.engine.models.language_model import LanguageModel
from mlx_server.engine.models.loading import Loader, Weights, load
from mlx_server.engine.models.weights.digest_file import DigestFile
from mlx_server.engine.models.weights.verification import Verification
from mlx_server.engine.prompt_cache.model_cache import ModelCache
from mlx_server.engine.prompt_cache.store import BlockStore
from mlx_server.engine.reranking.reranker import Reranker
from mlx_server.engine.scheduling.prompt_preloading import PromptPreloading
from mlx_server.engine.scheduling.request_table import EngineRequests
from mlx_server.engine.scheduling.runners.batch_runner import EmbeddingRunner, RerankRunner
from mlx_server.engine.scheduling.runners.runner import Runner
from mlx_server.engine.scheduling.runners.text_runner import TextRunner
from mlx_server.engine.settings import EngineSettings
from mlx_server.memory_forecast.kv_quantization import KvQuantization
from mlx_server.model_store import ModelEntry

MakeRunner = Callable[[ModelEntry, Weights, EngineRequests], Runner]


@dataclass(frozen=True)
class Backend:
    """What the scheduler needs of MLX, the disk and the machine.

    `guard` decides whether models and requests fit into memory. `load` loads a model in steps, and
    `make_runner` makes the object that serves a loaded model's requests. `release_memory` returns unused
    memory to the system. The other fields are described below.
    """

    prompt_cache: BlockStore
    guard: MemoryGuard
    load: Callable[[ModelEntry], Loader]
    make_runner: MakeRunner
    release_memory: Callable[[], None]
    active_bytes: Callable[[], int]
    """Returns how many bytes MLX's arrays hold."""
    cached_bytes: Callable[[], int]
    """Returns how many bytes of free memory MLX holds for reuse."""
    draft_counts: DraftCounts = field(default_factory=DraftCounts)
    """Counts the drafted tokens of all models since the engine's start."""
    verification: Verification = field(default_factory=Verification)
    """Verifies the weights of loaded models in the background."""
    preload_prompts: Callable[[bool], None] = lambda requests_run: None
    """Begins to read the next slice of cached prompts from disk into RAM, unless a slice is being read. Is
    told whether requests run (see `PromptPreloading.advance`)."""


def open_backend(settings: EngineSettings, workers: BackgroundWorkers) -> Backend:
    """Open the prompt cache, and return the backend that uses MLX, the disk and the machine."""
    store = settings.cache.open()
    guard = readings.memory_guard(
        settings.memory_limit_bytes,
        settings.batch.prefill_step_tokens,
        lambda: (store.ram_bytes, store.ready_bytes),
        settings.kv_of,
    )

    draft_counts = DraftCounts()
    verification = Verification(DigestFile(settings.weight_digests), workers.wake)

    def make_runner(entry: ModelEntry, weights: Weights, requests: EngineRequests) -> Runner:
        if isinstance(weights, Encoder):
            return EmbeddingRunner(entry.name, requests, weights, workers.new_tokenizer())
        if isinstance(weights, Reranker):
            return RerankRunner(entry.name, requests, weights, workers.new_tokenizer())
        tags = {"model": entry.name, "quantization": entry.quantization}
        try:
            kv = _usable_quantization(entry, weights, settings, guard)
            weights.prompts.limit_images(settings.max_image_pixels)
            cache = ModelCache(store, weights.identity, tags, kv)
            runner = TextRunner(
                entry.name,
                requests,
                weights,
                settings.batch,
                workers,
                cache,
                guard,
                kv,
                settings.max_repeated_tokens,
                draft_counts,
            )
            cache.preload()
            return runner
        except BaseException:
            weights.close()
            raise

    return Backend(
        store,
        guard,
        partial(load, verification=verification),
        make_runner,
        release_memory,
        mx.get_active_memory,
        mx.get_cache_memory,
        draft_counts,
        verification,
        PromptPreloading(store, workers.preloader, guard.free_bytes).advance,
    )


def release_memory() -> None:
    """Collect garbage, and return MLX's unused memory to the system."""
    gc.collect()
    mx.clear_cache()


def _usable_quantization(
    entry: ModelEntry, weights: LanguageModel, settings: EngineSettings, guard: MemoryGuard
) -> KvQuantization | None:
    """Return the configured quantization of the model's keys and values; None if none is configured, or the
    model cannot work with it. If the model cannot, log the reason, and record it in `guard`, which then
    forecasts the memory for unquantized keys and values.
    """
    wanted = settings.kv_of(entry.name)
    if wanted is None or (reason := quantization_obstacle(weights.model, wanted)) is None:
        return wanted
    log_event("kv_not_quantized", cause=reason, model=entry.name, bits=wanted.bits)
    guard.cannot_quantize_kv(entry)
    return None
