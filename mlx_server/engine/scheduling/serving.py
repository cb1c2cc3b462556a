"""What the engine has and does: models, their loads, the requests that wait. Lives in the MLX thread.

The scheduler says when, this says what. Every method leaves the events it causes in `out`, in order.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from mlx_server.engine.background_workers import BackgroundWorkers
from mlx_server.engine.errors import EngineError
from mlx_server.engine.log import log_event
from mlx_server.engine.memory import readings
from mlx_server.engine.memory.ledger import Fits
from mlx_server.engine.memory.wait_policy import WaitPolicy
from mlx_server.engine.models.self_test import probe
from mlx_server.engine.scheduling.loaded_models import LoadedModel, LoadedModels, release_memory
from mlx_server.engine.scheduling.loads import Advanced, Arrived, Catalog, Evicted, Loads, Refused
from mlx_server.engine.scheduling.starting import Starts
from mlx_server.engine.scheduling.waiting import Waiting
from mlx_server.engine.settings import EngineSettings
from mlx_server.protocol import (
    Cancel,
    Done,
    Embed,
    Event,
    Failed,
    Generate,
    Load,
    Loaded,
    Loading,
    Op,
    Probe,
    Probed,
    Unload,
    Unloaded,
    Usage,
)
from vestal.config import canonical

PRELOAD = "preload/"
"""Ids of the loads that the engine asks of itself start with this."""


class Serving:
    """Owner of the models, the prompt cache and the memory ledger. `refusing`: nothing new is taken up."""

    def __init__(
        self,
        settings: EngineSettings,
        catalog: Catalog,
        helpers: BackgroundWorkers,
        clock: Callable[[], float],
    ) -> None:
        self.out: list[Event] = []
        self.refusing = False
        self.awaited: set[str] = set()
        """Ids of the preloads that have neither arrived nor failed yet."""
        self._settings, self._clock = settings, clock
        self.store = settings.cache.open()
        limit_bytes, step_tokens = settings.memory_limit_bytes, settings.batch.prefill_step_tokens
        self.guard = readings.memory_guard(
            limit_bytes, step_tokens, lambda: self.store.ram_bytes, settings.kv_of
        )
        self.models = LoadedModels(
            settings.max_loaded_models,
            settings.batch,
            settings.keep_alive_of,
            helpers,
            self.store,
            self.guard,
            settings.kv_of,
        )
        self.loads = Loads(catalog, self.models, self.guard, WaitPolicy(settings.max_wait_s))
        reload = self.loads.waiting.add
        self.starts = Starts(self.models, self.guard, settings.max_wait_s, reload)
        self.guard.tenants = lambda: self.models.tenants(self.starts.backlog.awaits)
        self.guard.relieve = self._relieve
        self._freed = False

    # --- how things stand ---

    @property
    def running(self) -> bool:
        return any(len(held.runner) for held in self.models.all())

    @property
    def working(self) -> bool:
        return bool(self.loads) or bool(self.starts.backlog) or self.running

    @property
    def has_steps(self) -> bool:
        """Is there anything to do at once?"""
        can_step = any(held.runner.can_step for held in self.models.all())
        return not self.loads.blocked or can_step or self.starts.backlog.due(self._clock()) is not None

    # --- operations ---

    def preload(self) -> None:
        for name in self._settings.preload:
            self.awaited.add(PRELOAD + name)
            self.take(Load(PRELOAD + name, name, self._settings.keep_alive_of(name)))

    def take(self, op: Op) -> None:
        """Carry out an operation, or begin to."""
        if isinstance(op, (Generate, Embed, Load, Unload)):
            op = replace(op, model=canonical(op.model))
        match op:
            case Generate() | Embed() | Load() if self.refusing:
                message = "The engine is shutting down; the request can be sent again."
                self.out.append(Failed(op.id, "engine_unavailable", message, retryable=True))
            case Generate() | Embed() | Load():
                self._request(op)
            case Cancel():
                self._cancel(op)
            case Unload():
                self._unload(op)
            case Probe():
                ok, detail = probe([held.weights for held in self.models.all()])
                self.out.append(Probed(op.id, ok, detail))

    def _request(self, op: Waiting) -> None:
        held = self.models.get(op.model)
        if held is None:
            self.loads.waiting.add(op)
        else:
            self._start(held, op, load_s=0.0)

    def _start(self, held: LoadedModel, op: Waiting, load_s: float) -> None:
        now = self._clock()
        self.models.touch(held, op.keep_alive_s, now)
        if isinstance(op, Load):
            self.awaited.discard(op.id)
            self.out.append(Loaded(held.entry.name, held.bytes, load_s, op.id))
            return
        if isinstance(op, Generate):
            self.starts.backlog.put(op, load_s)
            self.start_waiting()
            return
        try:
            self.out.extend(held.runner.start(op, now, load_s))
        except EngineError as error:
            self.out.append(error.failed(op.id))

    def start_waiting(self) -> None:
        """Requests of loaded models, as memory allows."""
        self.out.extend(self.starts.step(self._clock()))

    def _cancel(self, op: Cancel) -> None:
        now = self._clock()
        if self.loads.waiting.remove(op.id) or self.starts.backlog.remove(op.id):
            self.out.append(Done(op.id, "cancelled", Usage(0, 0)))
            return
        for held in self.models.all():
            if done := held.runner.cancel(op.id, now):
                self.out.append(done)
                held.runner.tidy()
                if not len(held.runner):
                    self.models.rest(held, now)
                return

    def _unload(self, op: Unload) -> None:
        held = self.models.get(op.model)
        if held is None:
            self.out.append(Unloaded(op.model, op.id))
        else:
            held.unload_ids.append(op.id)

    # --- loading and unloading ---

    def load(self) -> None:
        """A turn of the load in progress, or the begin of the next."""
        for outcome in self.loads.step():
            match outcome:
                case Advanced(model, fraction):
                    self.out.append(Loading(model, round(fraction, 3)))
                case Evicted(held):
                    self._drop(held, "evicted")
                case Arrived():
                    self._arrived(outcome)
                case Refused(model, error, waiting):
                    log_event("model_load_failed", cause=str(error), model=model, code=error.code)
                    self.awaited -= {op.id for op in waiting}
                    self.out.extend(error.failed(op.id) for op in waiting)

    def _arrived(self, arrived: Arrived) -> None:
        name, load_s = arrived.entry.name, arrived.load_s
        held = self.models.admit(arrived.entry, arrived.weights, self._clock())
        log_event("model_loaded", model=name, bytes=held.bytes, load_s=round(load_s, 3))
        if not any(isinstance(op, Load) for op in arrived.waiting):
            self.out.append(Loaded(name, held.bytes, load_s))
        for op in arrived.waiting:
            self._start(held, op, load_s)

    def expire(self) -> None:
        """Unload the models whose time is up, or that were told to go."""
        for held in self.models.expired(self._clock()):
            if held.entry.name != self.starts.backlog.awaits:
                self._drop(held, "unloaded" if held.unload_ids else "expired")

    def give_back_freed(self) -> None:
        """To be called when the last frame that knew a dropped model has ended, not before."""
        if self._freed:
            self._freed = False
            release_memory()

    def _relieve(self, fits: Fits) -> None:
        """Make room, in the ledger's order: idle caches, then idle models."""
        for held in [held for name in fits.evict if (held := self.models.get(name))]:
            self._drop(held, "evicted")
        if fits.drop_caches:
            self.store.give_back(fits.lacking_bytes)
        release_memory()

    def _drop(self, held: LoadedModel, cause: str) -> None:
        name = held.entry.name
        ids: list[str | None] = [*held.unload_ids] or [None]
        self.models.drop(held)
        self._freed = True
        log_event("model_unloaded", cause=cause, model=name)
        self.out.extend(Unloaded(name, id) for id in ids)
