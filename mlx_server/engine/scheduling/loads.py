"""Models on their way into memory, and the requests that wait for them. Lives in the MLX thread.

One model is loaded at a time, a slice a step, so that loading does not hold up those that are loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mlx_server.engine.errors import EngineError, LoadError, RequestError
from mlx_server.engine.memory.guard import MemoryGuard
from mlx_server.engine.memory.ledger import Fits
from mlx_server.engine.memory.refusals import MustWait
from mlx_server.engine.memory.wait_policy import RETRY_S, WaitPolicy
from mlx_server.engine.models.loading import Loader, Weights, load
from mlx_server.engine.scheduling.loaded_models import LoadedModel, LoadedModels
from mlx_server.engine.scheduling.waiting import Waiting, WaitingRoom
from mlx_server.model_store import BrokenModel, ModelEntry

Catalog = Callable[[], tuple[list[ModelEntry], list[BrokenModel]]]
"""What can be loaded, and what is broken."""


TURN_S = 0.05
"""How long a load may hold up the others' next step, in seconds, beyond the slice it is at."""


@dataclass(frozen=True)
class Advanced:
    """A slice of `model` was read; `fraction` in 0..1."""

    model: str
    fraction: float


@dataclass(frozen=True)
class Evicted:
    """`held` must make way for the next."""

    held: LoadedModel


@dataclass(frozen=True)
class Arrived:
    """A model is in memory, and those that waited for it can start."""

    entry: ModelEntry
    weights: Weights
    load_s: float
    waiting: list[Waiting]


@dataclass(frozen=True)
class Refused:
    """A model cannot be had; those that waited for it are to be told."""

    model: str
    error: EngineError
    waiting: list[Waiting]


Outcome = Advanced | Evicted | Arrived | Refused


class Loads:
    """Decides what is loaded next, first come first; the scheduler carries out what `step` yields."""

    def __init__(
        self,
        catalog: Catalog,
        models: LoadedModels,
        guard: MemoryGuard,
        patience: WaitPolicy,
        start: Callable[[ModelEntry], Loader] = load,
    ) -> None:
        self.waiting = WaitingRoom()
        self._catalog, self._models, self._start = catalog, models, start
        self._guard, self._patience = guard, patience
        self._retry_at_s = float("-inf")
        self._entry: ModelEntry | None = None
        self._loader: Loader | None = None
        self._started_s = self._fraction = 0.0

    @property
    def loading(self) -> str | None:
        """The model that is being loaded."""
        return self._entry.name if self._entry else None

    @property
    def blocked(self) -> bool:
        """Nothing is loaded, and all that is waited for must wait on."""
        return self._entry is None and (not len(self.waiting) or time.monotonic() < self._retry_at_s)

    def __len__(self) -> int:
        return len(self.waiting) + (self._entry is not None)

    def abandon(self) -> list[Waiting]:
        """Stop loading; those that waited."""
        self._end()
        return self.waiting.clear()

    def _end(self) -> None:
        self._entry = self._loader = None
        self._guard.load_ended()

    def step(self) -> Iterator[Outcome]:
        """A turn of the load in progress, or the begin of the next."""
        if self._entry is None or self._loader is None:
            if not self.blocked:
                yield from self._begin()
            return
        entry = self._entry
        try:
            if self._advance(self._loader):
                yield Advanced(entry.name, self._fraction)
        except StopIteration as end:
            self._end()
            load_s = time.monotonic() - self._started_s
            yield Arrived(entry, end.value, load_s, self.waiting.take(entry.name))
        except EngineError as error:
            self._end()
            yield Refused(entry.name, error, self.waiting.take(entry.name))

    def _advance(self, loader: Loader) -> bool:
        """Slices for about as long as a step of the others takes; False where the loader itself waits.

        One slice a turn made a large model's load several times longer beside a busy stream.
        """
        before, until_s = self._fraction, time.monotonic() + TURN_S
        while (fraction := next(loader)) != self._fraction:
            self._fraction = fraction
            if time.monotonic() >= until_s:
                break
        return self._fraction != before

    def _begin(self) -> Iterator[Outcome]:
        """Start on the first model waited for that can be loaded now."""
        for name in self.waiting.models():
            try:
                entry = must_find(self._catalog, name)
                leaving = self._models.room_for_one()
                if leaving is None:
                    raise MustWait(self._all_busy(name), behind_ours=True)
                fits = self._guard.before_load(entry, [held.entry.name for held in leaving])
            except MustWait as wait:
                patient = wait.behind_ours or self.waiting.resumes(name)
                if self._patience.is_over(name, patient, time.monotonic()):
                    yield self._refuse(name, wait.refusal)
            except EngineError as error:
                yield self._refuse(name, error)
            else:
                yield from self._make_room(leaving, fits)
                self._patience.forget(name)
                self._entry, self._loader = entry, self._start(entry)
                self._started_s, self._fraction = time.monotonic(), 0.0
                yield Advanced(name, 0.0)
                return
        if len(self.waiting):
            self._retry_at_s = time.monotonic() + RETRY_S

    def _make_room(self, leaving: list[LoadedModel], fits: Fits) -> Iterator[Outcome]:
        evicted = (held for name in fits.evict if (held := self._models.get(name)))
        yield from map(Evicted, [*leaving, *evicted])
        if fits.drop_caches:
            self._guard.relieve(Fits(drop_caches=True, lacking_bytes=fits.lacking_bytes))

    def _all_busy(self, name: str) -> EngineError:
        held = self._models.all()
        message = (
            f"Model {name} has waited for one of the {len(held)} loaded models to be idle; try again later, "
            "or raise mlx.max_loaded_models."
        )
        return EngineError("overloaded", message, loaded_models=len(held))

    def _refuse(self, name: str, error: EngineError) -> Refused:
        self._patience.forget(name)
        return Refused(name, error, self.waiting.take(name))


def must_find(catalog: Catalog, model: str) -> ModelEntry:
    """Entry of `model`. Raises RequestError (`model_not_found`) that lists what there is; LoadError."""
    try:
        entries, broken = catalog()
    except Exception as error:  # listing reads folders that are the user's, in whatever state
        raise EngineError("model_load_failed", f"The models cannot be listed: {error}") from error
    found = next((entry for entry in entries if entry.name == model), None)
    if found is not None:
        return found
    if fault := next((fault for fault in broken if fault.name == model), None):
        raise LoadError(model, fault.reason)
    there = ", ".join(entry.name for entry in entries) or "none"
    raise RequestError("model_not_found", f"Model {model} is not there; installed models: {there}.")
