"""The models in memory, and the one that is coming. Lives in the MLX thread."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from mlx_server.engine.background_workers import BackgroundWorkers
from mlx_server.engine.embeddings.encoder import Encoder
from mlx_server.engine.generation.batch import BatchLimits
from mlx_server.engine.kv.kv_quantization import KvOf, KvQuantization, as_computed
from mlx_server.engine.kv.quantizing import obstacle
from mlx_server.engine.log import log_event
from mlx_server.engine.memory.guard import MemoryGuard, Tenant
from mlx_server.engine.models import residency
from mlx_server.engine.models.loading import LanguageModel, Weights, weights_bytes
from mlx_server.engine.models.residency import Resident
from mlx_server.engine.prompt_cache.model_cache import ModelCache
from mlx_server.engine.prompt_cache.store import Store
from mlx_server.engine.scheduling.embedding_runner import EmbeddingRunner
from mlx_server.engine.scheduling.text_runner import TextRunner
from mlx_server.model_store import ModelEntry
from mlx_server.protocol import LoadedModelReport

Runner = TextRunner | EmbeddingRunner


@dataclass
class LoadedModel:
    """A loaded model: its weights, the runner with its requests, and how long it stays."""

    entry: ModelEntry
    weights: Weights
    runner: Runner
    bytes: int
    last_used_s: float
    expires_s: float
    keep_alive_s: float | None = None  # the last request's wish
    unload_ids: list[str] = field(default_factory=list)

    def resident(self) -> Resident:
        """What the residency policy needs to know."""
        return Resident(self.entry.name, len(self.runner) > 0, self.last_used_s, self.expires_s)


class LoadedModels:
    """`default_keep_alive_s` tells, by name, how long an unused model stays; negative: for ever."""

    def __init__(
        self,
        limit: int,
        batch_limits: BatchLimits,
        default_keep_alive_s: Callable[[str], float],
        helpers: BackgroundWorkers,
        store: Store,
        guard: MemoryGuard,
        kv_of: KvOf = as_computed,
    ) -> None:
        self._kv_of = kv_of
        self._helpers, self._store, self._guard = helpers, store, guard
        self._limit = limit
        self._batch_limits = batch_limits
        self._default_keep_alive_s = default_keep_alive_s
        self._held: dict[str, LoadedModel] = {}
        self._on_gpu = mx.metal.is_available()

    def get(self, name: str) -> LoadedModel | None:
        return self._held.get(name)

    def all(self) -> Sequence[LoadedModel]:
        return list(self._held.values())

    def admit(self, entry: ModelEntry, weights: Weights, now: float) -> LoadedModel:
        """Take a freshly loaded model in."""
        runner: Runner
        if isinstance(weights, Encoder):
            runner = EmbeddingRunner(weights)
        else:
            tags = {"model": entry.name, "quantization": entry.quantization}
            kv = self._quantization(entry, weights)
            cache = ModelCache(self._store, weights.identity, tags, kv)
            runner = TextRunner(weights, self._batch_limits, self._helpers, cache, self._guard.admit, kv)
        held = LoadedModel(entry, weights, runner, weights_bytes(weights), now, now)
        self._held[entry.name] = held
        self.touch(held, None, now)
        return held

    def _quantization(self, entry: ModelEntry, loaded: LanguageModel) -> KvQuantization | None:
        """As configured, unless the model cannot work with it: it is then served in more memory."""
        wanted = self._kv_of(entry.name)
        if wanted is None or (reason := obstacle(loaded.model, wanted)) is None:
            return wanted
        log_event("kv_not_quantized", cause=reason, model=entry.name, bits=wanted.bits)
        self._guard.keeps_kv_as_computed(entry)
        return None

    def touch(self, held: LoadedModel, keep_alive_s: float | None, now: float) -> None:
        """Note a use, and start its keep-alive anew. It runs from the end of the last request: see `rest`."""
        held.keep_alive_s = keep_alive_s
        self.rest(held, now)

    def rest(self, held: LoadedModel, now: float) -> None:
        """Its requests are done: from now on it is unused."""
        held.last_used_s = now
        default = self._default_keep_alive_s(held.entry.name)
        held.expires_s = residency.deadline(now, held.keep_alive_s, default)

    def expired(self, now: float) -> list[LoadedModel]:
        """Idle models whose time is up, or that were told to go."""
        names = set(residency.expired(self._residents(), now))
        return [h for n, h in self._held.items() if n in names or (h.unload_ids and not len(h.runner))]

    def next_expiry_s(self) -> float:
        return residency.next_expiry_s(self._residents())

    def room_for_one(self) -> list[LoadedModel] | None:
        """The models to drop so that one more fits; None where it must wait."""
        names = residency.victims(self._residents(), self._limit)
        return None if names is None else [self._held[name] for name in names]

    def tenants(self, awaited: str | None) -> list[Tenant]:
        """For the memory ledger; `awaited` is about to be used."""
        return [
            Tenant(held.entry, held.bytes, held.runner.requests(), held.last_used_s, name == awaited)
            for name, held in self._held.items()
        ]

    def drop(self, held: LoadedModel) -> None:
        """Free a model's memory."""
        held.runner.close()
        del self._held[held.entry.name]

    def kv_bytes(self) -> dict[str, int]:
        """What each model's requests hold in keys and values, as of now."""
        return {name: held.runner.kv_bytes() for name, held in self._held.items()}

    def loaded(self, now: float, kv_bytes: Mapping[str, int]) -> tuple[LoadedModelReport, ...]:
        """For `alive`."""
        return tuple(
            LoadedModelReport(
                model=held.entry.name,
                kind=held.entry.kind,
                bytes=held.bytes,
                context_tokens=held.entry.context_tokens,
                expires_in_s=None if held.expires_s == float("inf") else max(held.expires_s - now, 0.0),
                kv_bytes=kv_bytes.get(held.entry.name, 0),
                on_gpu=self._on_gpu,
            )
            for held in self._held.values()
        )

    def _residents(self) -> list[Resident]:
        return [held.resident() for held in self._held.values()]


def release_memory() -> None:
    """Give back what dropped models held, to the system."""
    gc.collect()
    mx.clear_cache()
