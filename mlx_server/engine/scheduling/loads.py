"""Decide which model is loaded next, and how long a load that does not fit waits for memory.

One model is loaded at a time. `Loads` changes neither models nor requests. Its method `step` yields outcomes,
and the scheduler acts on each one before it asks for the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from mlx_server.engine.errors import EngineError, LoadError, RequestError
from mlx_server.engine.memory.guard import MemoryGuard
from mlx_server.engine.memory.ledger import Fits
from mlx_server.engine.memory.refusals import MustWait
from mlx_server.engine.memory.wait_policy import RETRY_S, WaitPolicy
from mlx_server.engine.models.loading import Loader, Weights, load
from mlx_server.engine.scheduling.loaded_models import LoadedModel, LoadedModels
from mlx_server.engine.scheduling.model_load import ModelLoad
from mlx_server.engine.scheduling.request import RequestStatus
from mlx_server.engine.scheduling.request_table import EngineRequests
from mlx_server.model_store import BrokenModel, ModelEntry
from mlx_server.model_store.catalog.changes import LOOK_AGAIN_S
from mlx_server.protocol import Embed, Generate, Load, Rerank
from vestal.config import find_named

Catalog = Callable[[], tuple[list[ModelEntry], list[BrokenModel]]]
"""Returns the models that can be loaded, and those whose folders are broken."""


@dataclass(frozen=True)
class LoadAdvanced:
    """The load of `model` has progressed to `fraction` (0 to 1)."""

    model: str
    fraction: float


@dataclass(frozen=True)
class Evict:
    """The loaded model `model` must be unloaded before the next model is loaded, because of `cause`."""

    model: LoadedModel
    cause: str


@dataclass(frozen=True)
class LoadCompleted:
    """A model has been loaded, which took `load_s` seconds. `entry` is the model's entry in the catalog, and
    `weights` is the model in memory. The requests that wait for the model can start. If a loaded model whose
    files had changed was replaced, `keep_alive_s` is the keep-alive in seconds that a client asked for that
    model; else None.
    """

    entry: ModelEntry
    weights: Weights
    load_s: float
    keep_alive_s: float | None = None


@dataclass(frozen=True)
class LoadNotNeeded:
    """The outcome that `model` need not be loaded: it is loaded already, and its name still stands for the
    files from which it was loaded. The requests that wait for it can start.
    """

    model: LoadedModel


@dataclass(frozen=True)
class LoadRefused:
    """A model cannot be loaded. The requests that wait for it must fail with `error`."""

    model: str
    error: EngineError


Outcome = LoadAdvanced | Evict | LoadCompleted | LoadNotNeeded | LoadRefused


class Loads:
    """Decides which model to load next, by the order of the requests that wait for models, and advances the
    load in progress.
    """

    def __init__(
        self,
        requests: EngineRequests,
        catalog: Catalog,
        models: LoadedModels,
        guard: MemoryGuard,
        policy: WaitPolicy,
        load: Callable[[ModelEntry], Loader] = load,
    ) -> None:
        self._requests, self._catalog, self._models = requests, catalog, models
        self._guard, self._policy, self._start_loader = guard, policy, load
        self._current: ModelLoad | None = None
        self._retry_at_s = float("-inf")
        self._blocked_since_s: dict[str, float] = {}  # by model: since when its load has found no room

    @property
    def loading(self) -> str | None:
        """Return the name of the model that is being loaded; None if no model is."""
        return self._current.entry.name if self._current else None

    def blocked(self, now: float) -> bool:
        """Return True if no load can advance at the time `now`, because no load is requested, or because all
        must wait until a later time.
        """
        return self._current is None and (not self._awaited() or now < self._retry_at_s)

    def abandon(self) -> None:
        """Stop the load in progress, if any."""
        self._end()

    def _end(self) -> None:
        self._current = None
        self._guard.load_ended()

    def step(self, clock: Callable[[], float]) -> Iterator[Outcome]:
        """Advance the load in progress by one turn, or begin the next load. Yield the outcomes."""
        if self._current is not None:
            yield from self._advance(self._current, clock)
        elif not self.blocked(clock()):
            yield from self._begin(clock)

    def _advance(self, current: ModelLoad, clock: Callable[[], float]) -> Iterator[Outcome]:
        entry = current.entry
        try:
            advanced = current.advance(clock)
        except EngineError as error:
            self._end()
            yield self._refuse(entry.name, error)
            return
        if current.weights is not None:
            self._end()
            yield LoadCompleted(entry, current.weights, current.elapsed_s(clock()), current.keep_alive_s)
        elif advanced:
            yield LoadAdvanced(entry.name, current.fraction)

    def _begin(self, clock: Callable[[], float]) -> Iterator[Outcome]:
        """Begin to load the first model that requests wait for and that fits into memory at this time.

        Yield the outcomes: LoadRefused for each model that cannot be loaded or has waited too long,
        LoadNotNeeded for each that is loaded; then, if a load begins, Evict for each model that must be
        unloaded for it, and LoadAdvanced. `clock` returns the time in seconds.

        A loaded model whose files were replaced is unloaded only here: if the new files are broken, it goes
        on answering.
        """
        self._look_up_requested_models()
        waited_for, now = self._awaited(), clock()
        self._blocked_since_s = {m: s for m, s in self._blocked_since_s.items() if m in waited_for}
        for name in waited_for:
            if (model := self._models.for_new_request(name)) is not None:
                yield LoadNotNeeded(model)
                continue
            outdated = self._models.get(name)
            try:
                entry = find_entry(self._catalog, name)
                leaving = self._models.evictions_for(entry)
                if leaving is None:
                    raise MustWait(self._busy(name), held_by_requests=True)
                fits = self._guard.before_load(entry, [model.entry.name for model in leaving])
            except MustWait as wait:
                if self._has_waited_long_enough(name, wait, now):
                    yield self._refuse(name, wait.refusal)
            except EngineError as error:
                yield self._refuse(name, error)
            else:
                loader = self._start_loader(
                    entry
                )  # the loader shares the weights of models that are about to be unloaded
                keep_alive_s = outdated.keep_alive_s if outdated is not None else None
                yield from self._make_room(name, leaving, fits)
                self._blocked_since_s.pop(name, None)
                self._current = ModelLoad(entry, loader, clock(), keep_alive_s)
                yield LoadAdvanced(name, 0.0)
                return
        if self._awaited():
            self._retry_at_s = clock() + RETRY_S

    def _look_up_requested_models(self) -> None:
        """Look up again under which names the models are loaded that clients have asked for by another name.
        Since a request began to wait, the model with the same weights may have been replaced or deleted.
        """
        waiting = self._requests.select(RequestStatus.WAITING_FOR_MODEL)
        requested = {request.op.requested_model for request in waiting} - {""}
        loaded_as = {name: find_loaded_as(self._catalog, name) for name in requested}
        for request in waiting:
            if request.op.requested_model:
                request.wait_for(loaded_as[request.op.requested_model])

    def _awaited(self) -> list[str]:
        return self._requests.models(RequestStatus.WAITING_FOR_MODEL)

    def _has_waited_long_enough(self, name: str, wait: MustWait, now: float) -> bool:
        # Requests that a crash interrupted wait longer, because Metal frees the dead engine's memory slowly.
        waiting = self._requests.select(RequestStatus.WAITING_FOR_MODEL, model=name)
        patient = wait.held_by_requests or any(request.resumes for request in waiting)
        return self._policy.is_over(self._blocked_since_s.setdefault(name, now), patient, now)

    def _refuse(self, name: str, error: EngineError) -> LoadRefused:
        self._blocked_since_s.pop(name, None)  # a request that is sent again begins a new wait
        return LoadRefused(name, error)

    def _make_room(self, name: str, leaving: list[LoadedModel], fits: Fits) -> Iterator[Outcome]:
        evicted = (model for other in fits.evict if (model := self._models.get(other)))
        for model in [*leaving, *evicted]:
            yield Evict(model, "outdated" if model.entry.name == name else "evicted")
        if fits.drop_caches:
            self._guard.relieve(Fits(drop_caches=True, lacking_bytes=fits.lacking_bytes))

    def _busy(self, name: str) -> EngineError:
        """Return the error for the requests that have waited too long for the model `name`. The error says
        why the model could not be loaded: requests still use an outdated model of this name, or none of the
        loaded models became idle.
        """
        if self._models.get(name) is not None:
            message = (
                f"Model {name} was replaced, and requests still run with its earlier files; try again later."
            )
            return EngineError("overloaded", message)
        loaded = len(self._models.all())
        message = (
            f"Model {name} has waited for one of the {loaded} loaded models to be idle; try again later, "
            "or raise mlx.max_loaded_models."
        )
        return EngineError("overloaded", message, loaded_models=loaded)


class LoadedAs:
    """Looks up under which name the model of an operation is loaded. A looked-up name is used again for
    LOOK_AGAIN_S seconds, because each look-up has to list all installed models. Any thread may call it.
    """

    def __init__(self, catalog: Catalog, clock: Callable[[], float]) -> None:
        self._catalog, self._clock = catalog, clock
        self._looks: dict[str, tuple[float, str]] = {}  # by name: when the look ended, and its result or ""

    def __call__(self, op: Generate | Embed | Rerank | Load) -> str:
        """Return the name under which the model of `op` is loaded.

        This is `op.model`, unless the client asked for a model of another name, `op.requested_model`. The
        gateway has then set `op.model` to the name of the model with which the requested one shared its
        weights. That model may have been replaced or deleted since, so look up the name for the requested
        model. If the requested model cannot be found any more, return the name that was last found for it, or
        else `op.model`.
        """
        if not op.requested_model:
            return op.model
        ended_s, name = self._looks.get(op.requested_model, (-LOOK_AGAIN_S, ""))
        if self._clock() - ended_s >= LOOK_AGAIN_S:
            with suppress(EngineError):
                name = find_entry(self._catalog, op.requested_model).loaded_as
            self._looks[op.requested_model] = self._clock(), name
        return name or op.model


def find_loaded_as(catalog: Catalog, model: str) -> str:
    """Return the name under which the weights of `model` are loaded: its own name, or that of the model with
    which it shares them. If `model` cannot be found, return `model`, so that the attempt to load it reports
    the error.
    """
    try:
        return find_entry(catalog, model).loaded_as
    except EngineError:
        return model


def find_entry(catalog: Catalog, model: str) -> ModelEntry:
    """Return the catalog's entry for `model`.

    Raises RequestError (`model_not_found`), which lists the installed models, if there is none; LoadError if
    the model's folder is broken; and EngineError (`model_load_failed`) if the models cannot be listed.
    """
    try:
        entries, broken = catalog()
    except Exception as error:  # the catalog reads the user's folders, which may be in any state
        raise EngineError("model_load_failed", f"The models cannot be listed: {error}") from error
    if found := find_named(model, entries, lambda entry: entry.name):
        return found
    if fault := find_named(model, broken, lambda fault: fault.name):
        raise LoadError(model, fault.reason)
    installed = ", ".join(entry.name for entry in entries) or "none"
    raise RequestError("model_not_found", f"Model {model} is not there; installed models: {installed}.")
