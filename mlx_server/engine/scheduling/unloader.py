"""Unload models that have expired, that an `Unload` operation names, or that must make room, and free their
memory.
"""

from __future__ import annotations

from collections.abc import Callable

from mlx_server.engine.errors import DamagedWeights
from mlx_server.engine.log import log_event
from mlx_server.engine.memory.ledger import Fits
from mlx_server.engine.models.weights.verification import Verification
from mlx_server.engine.prompt_cache.store import BlockStore
from mlx_server.engine.scheduling.loaded_models import LoadedModel, LoadedModels
from mlx_server.protocol import Event, Unloaded


class Unloader:
    """Unloads models that have expired, that an `Unload` operation names, that have damaged weights, or whose
    memory is needed. Passes the `Unloaded` events to `send`.

    If memory is needed, RAM of `prompt_cache` may be freed, too. `verification` reports models with damaged
    weights, and is notified of each unload. `release_memory` returns freed memory to the system.
    """

    def __init__(
        self,
        models: LoadedModels,
        prompt_cache: BlockStore,
        release_memory: Callable[[], None],
        send: Callable[[Event], None],
        verification: Verification,
    ) -> None:
        self._verification = verification
        self._models, self._prompt_cache = models, prompt_cache
        self._release_memory, self._send = release_memory, send
        self._has_unreleased = False

    def unload(self, model: LoadedModel, cause: str, damage: str = "") -> None:
        """Unload a model. Send an `Unloaded` event, with the operation's id, for each `Unload` operation that
        named the model. If there was no such operation, send one event without an id. The model's memory is
        free once no stack frame refers to the model (see `release_freed_memory`).

        `cause` is written to the engine's log. `damage` is a sentence about the damage if the model's weights
        are damaged; else "".
        """
        name = model.entry.name
        ids: list[str | None] = [*model.unload_ids] or [None]
        self._models.drop(model)
        self._verification.unloaded(name)
        self._has_unreleased = True
        log_event("model_unloaded", cause=cause, model=name)
        for id in ids:
            self._send(Unloaded(name, id, damage))

    def unload_expired(self, now: float) -> None:
        """Unload the models without requests whose keep-alive is over, or which an `Unload` operation
        names.
        """
        for model in self._models.expired(now):
            self.unload(model, "unloaded" if model.unload_ids else "expired")

    def unload_damaged(self) -> None:
        """Fail the requests of the models whose weights were found damaged, and unload these models."""
        for name, sentence in self._verification.take_damaged():
            if (model := self._models.get(name)) is not None:
                error = DamagedWeights(name, sentence)
                for id in self._models.request_ids(name):
                    self._send(error.failed(id))
                log_event("weights_damaged", cause=str(error), model=name)
                self.unload(model, "damaged", str(error))

    def relieve(self, fits: Fits) -> None:
        """Free memory as the memory ledger has decided in `fits`: unload the idle models in `fits.evict`,
        free as much RAM of the prompt cache as it says, and release MLX's free memory.
        """
        for model in [model for name in fits.evict if (model := self._models.get(name))]:
            self.unload(model, "evicted")
        if fits.drop_caches:
            self._prompt_cache.free_ram(fits.lacking_bytes)
        self._release_memory()

    def unload_all(self) -> None:
        """Unload all models when the engine ends, without answering `Unload` operations."""
        for model in self._models.all():
            self._models.drop(model)
        self._release_memory()

    def release_freed_memory(self) -> None:
        """Return the memory of unloaded models to the system.

        Call this when all functions that refer to an unloaded model have returned.
        """
        if self._has_unreleased:
            self._has_unreleased = False
            self._release_memory()
