"""The models in memory: their runners, and how long each model remains loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mlx_server.engine.device import computes_on_gpu
from mlx_server.engine.memory.guard import Tenant
from mlx_server.engine.models import residency
from mlx_server.engine.models.loading import Weights, shared_bytes, weights_bytes
from mlx_server.engine.models.residency import Resident
from mlx_server.engine.scheduling.memory_queue import MemoryQueue
from mlx_server.engine.scheduling.request import IN_RUNNER, RequestStatus
from mlx_server.engine.scheduling.request_table import EngineRequests
from mlx_server.engine.scheduling.runners.runner import Runner
from mlx_server.model_store import ModelEntry
from mlx_server.protocol import Embed, Generate, Load, LoadedModelReport, Rerank


@dataclass
class LoadedModel:
    """A model in memory. `runner` processes its requests. While there are none, the model is unloaded at
    `expires_s`, which is the time of its last use plus its keep-alive; infinity means never. Times are in
    seconds on the scheduler's clock.

    `bytes` is the size of its weights. `shared_bytes` of them are shared with the other models whose entries
    have the same `weights_id`. The other fields are described below.
    """

    entry: ModelEntry
    weights: Weights
    runner: Runner
    bytes: int
    last_used_s: float
    expires_s: float
    shared_bytes: int = 0
    keep_alive_s: float | None = None
    """How many seconds the last request that named a keep-alive asked to keep the model loaded; None for the
    default."""
    last_step_s: float = 0.0
    """How many seconds the last step of its runner took."""
    unload_ids: list[str] = field(default_factory=list)
    """Ids of the `Unload` operations to answer. They make the model unload once its requests are done."""


class LoadedModels:
    """The models in memory, at most `limit`: the caller must unload the models that `evictions_for` returns
    before it loads another one. `requests` are all requests in the engine, which show which models are busy.
    The model of the first request in `queue` is about to be needed, so it neither expires nor makes room.

    `default_keep_alive_s`, called with a model's name, returns how many seconds that model remains loaded by
    default while it is unused; a negative number means forever. `has_changed` returns True if a model's name
    stands for other files than those from which the model was loaded.
    """

    def __init__(
        self,
        requests: EngineRequests,
        queue: MemoryQueue,
        limit: int,
        default_keep_alive_s: Callable[[str], float],
        has_changed: Callable[[ModelEntry], bool],
    ) -> None:
        self._requests, self._queue, self._limit = requests, queue, limit
        self._default_keep_alive_s, self._has_changed = default_keep_alive_s, has_changed
        self._models: dict[str, LoadedModel] = {}
        self._on_gpu = computes_on_gpu()

    def get(self, name: str) -> LoadedModel | None:
        return self._models.get(name)

    def for_new_request(self, name: str) -> LoadedModel | None:
        """Return the model `name` if a new request can begin with it. Return None if the model is not loaded,
        or is outdated: its name stands for other files now. Requests that have begun with an outdated model
        end with it. Later ones wait until it has been unloaded and loaded again. Any thread may call this.
        """
        model = self._models.get(name)
        return None if model is None or self._has_changed(model.entry) else model

    def all(self) -> Sequence[LoadedModel]:
        return list(self._models.values())

    def add(
        self,
        entry: ModelEntry,
        weights: Weights,
        runner: Runner,
        now: float,
        keep_alive_s: float | None = None,
    ) -> LoadedModel:
        """Add a model that has just been loaded, and return it. If the model replaces a loaded model whose
        files had changed, `keep_alive_s` is the keep-alive in seconds that a client asked for the replaced
        model; else None.
        """
        held, shared = weights_bytes(weights), shared_bytes(weights) if entry.weights_id else 0
        model = LoadedModel(entry, weights, runner, held, now, now, shared, keep_alive_s)
        self._models[entry.name] = model
        self.mark_unused(model, now)
        return model

    def drop(self, model: LoadedModel) -> None:
        """Finish the model's requests without sending events, and remove the model."""
        model.runner.close()
        del self._models[model.entry.name]

    # --- use and keep-alive ---

    def is_busy(self, model: LoadedModel) -> bool:
        """Return whether the model's runner works on requests."""
        return self._requests.any(*IN_RUNNER, model=model.entry.name)

    def mark_used(self, model: LoadedModel, op: Generate | Embed | Rerank | Load, now: float) -> None:
        """Record that the request `op` uses the model, and restart the model's keep-alive. A keep-alive that
        the request names also holds after later requests that name none, as in Ollama. Otherwise, clients of
        APIs without a keep-alive would end one that was set for the model.

        A resumed `Load` restores the keep-alive of an earlier engine. It changes nothing if another request
        has named a keep-alive, because that one may be newer.
        """
        if isinstance(op, Load) and op.resumed and model.keep_alive_s is not None:
            return
        if op.keep_alive_s is not None:
            model.keep_alive_s = op.keep_alive_s
        self.mark_unused(model, now)
        if isinstance(op, Load) and op.expires_in_s is not None:
            model.expires_s = min(model.expires_s, now + op.expires_in_s)

    def mark_unused(self, model: LoadedModel, now: float) -> None:
        """Restart the model's keep-alive, which runs from the end of its last request."""
        model.last_used_s = now
        default_s = self._default_keep_alive_s(model.entry.name)
        model.expires_s = residency.expiry_s(now, model.keep_alive_s, default_s)

    def expired(self, now: float) -> list[LoadedModel]:
        """Return the models without requests that an `Unload` operation names, or whose keep-alive is over.

        A request that waits for memory counts as a request of its model, even if others come first: if its
        model were unloaded, the model would have to be loaded again, and the request would then be the last
        one to get memory.
        """
        names = set(residency.expired(self._residents(self._has_requests), now))
        return [
            model
            for name, model in self._models.items()
            if name in names or (model.unload_ids and not self._has_requests(model))
        ]

    def next_expiry_s(self) -> float:
        """Return the time, on the scheduler's clock, at which the keep-alive of the next model without
        requests is over; infinity if that will never happen.
        """
        return residency.next_expiry_s(self._residents(self._has_requests))

    def evictions_for(self, entry: ModelEntry) -> list[LoadedModel] | None:
        """Return the models to unload so that `entry` can be loaded without exceeding the limit on the number
        of models. If a model of the same name is loaded, it is outdated, and is among them.

        Return None if the outdated model has requests, or if too many other models are busy or needed by the
        first request that waits for memory.
        """
        outdated = self._models.get(entry.name)
        if outdated is not None and self._has_requests(outdated):
            return None
        residents = self._residents(lambda model: self.is_busy(model) or self._is_awaited(model))
        others = [resident for resident in residents if resident.name != entry.name]
        names = residency.victims(others, self._limit, entry.weights_id)
        leaving = [outdated] if outdated is not None else []
        return None if names is None else [*leaving, *(self._models[name] for name in names)]

    def _has_requests(self, model: LoadedModel) -> bool:
        """Return whether the model's runner works on requests, or requests for the model wait for memory."""
        return self._requests.any(*IN_RUNNER, RequestStatus.WAITING_FOR_MEMORY, model=model.entry.name)

    def _is_awaited(self, model: LoadedModel) -> bool:
        """Return whether the first request that waits for memory needs the model."""
        return model.entry.name == self._queue.awaited_model

    def _residents(self, must_stay: Callable[[LoadedModel], bool]) -> list[Resident]:
        return [
            Resident(name, must_stay(model), model.last_used_s, model.expires_s, _shared_as(model))
            for name, model in self._models.items()
        ]

    # --- reports ---

    def tenants(self) -> list[Tenant]:
        """Return all loaded models with the memory that they take, for the memory ledger."""
        return [
            Tenant(
                model.entry,
                model.bytes + model.runner.feature_bytes(),
                self.request_ids(name),
                model.last_used_s,
                self._is_awaited(model),
                _shared_as(model),
                model.shared_bytes + (model.runner.feature_bytes() if model.shared_bytes else 0),
            )
            for name, model in self._models.items()
        ]

    def request_ids(self, name: str) -> list[str]:
        """Return the ids of the requests on which the model's runner works."""
        return [request.id for request in self._requests.select(*IN_RUNNER, model=name)]

    def kv_bytes(self) -> dict[str, int]:
        """Return, for each model, how many bytes of keys and values its requests hold at this time."""
        return {name: model.runner.kv_bytes() for name, model in self._models.items()}

    def _counted_with(self) -> dict[str, str]:
        """Return, by the id of weights that models share, the name of the one model whose report counts these
        weights. The reports on the other models leave them out, so that they are not counted twice.
        """
        found: dict[str, str] = {}
        for name, model in sorted(self._models.items(), key=lambda item: item[1].entry.adapter is not None):
            if shared := _shared_as(model):
                found.setdefault(shared, name)
        return found

    def reports(self, now: float, kv_bytes: Mapping[str, int]) -> tuple[LoadedModelReport, ...]:
        """Return the reports on the loaded models for the `alive` event. `kv_bytes` maps the name of each
        model to the bytes of keys and values that its requests hold, which its report includes.

        Weights that several models share are counted only for one of them: the model without an adapter, or
        else the model that was loaded first.
        """
        counted = self._counted_with()
        return tuple(
            LoadedModelReport(
                model=name,
                kind=model.entry.kind,
                bytes=model.bytes
                - (0 if counted.get(_shared_as(model), name) == name else model.shared_bytes),
                context_tokens=model.entry.context_tokens,
                expires_in_s=None if model.expires_s == float("inf") else max(model.expires_s - now, 0.0),
                kv_bytes=kv_bytes.get(name, 0),
                on_gpu=self._on_gpu,
                keep_alive_s=model.keep_alive_s,
            )
            for name, model in self._models.items()
        )


def _shared_as(model: LoadedModel) -> str:
    """Return the id of the weights that a model shares with others; "" if it does not share its weights."""
    return model.entry.weights_id if model.shared_bytes else ""
