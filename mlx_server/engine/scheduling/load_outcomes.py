"""Act on the outcomes of a load: it advances, needs memory, completes, or is refused."""

from __future__ import annotations

from collections.abc import Callable

from mlx_server.engine.errors import EngineError, LoadError
from mlx_server.engine.log import log_event
from mlx_server.engine.scheduling.backend import MakeRunner
from mlx_server.engine.scheduling.loaded_models import LoadedModel, LoadedModels
from mlx_server.engine.scheduling.loads import (
    Evict,
    LoadAdvanced,
    LoadCompleted,
    LoadNotNeeded,
    LoadRefused,
    Loads,
)
from mlx_server.engine.scheduling.request import RequestStatus
from mlx_server.engine.scheduling.request_table import EngineRequests
from mlx_server.engine.scheduling.starter import Starter
from mlx_server.engine.scheduling.unloader import Unloader
from mlx_server.protocol import Event, Load, Loaded, Loading


class LoadOutcomes:
    """Advances the load of a model, or begins the next load, and acts on the outcome: starts the requests
    that wait for the model, fails them if it cannot be loaded, and unloads other models to make room. The
    events that this causes are passed to `send`.
    """

    def __init__(
        self,
        loads: Loads,
        requests: EngineRequests,
        models: LoadedModels,
        starter: Starter,
        unloader: Unloader,
        make_runner: MakeRunner,
        send: Callable[[Event], None],
        clock: Callable[[], float],
    ) -> None:
        self._loads, self._requests, self._models = loads, requests, models
        self._starter, self._unloader, self._make_runner = starter, unloader, make_runner
        self._send, self._clock = send, clock

    def advance(self) -> None:
        """Advance the load in progress by one turn, or begin to load the next model that requests wait for.
        Do nothing if there is no such model, or if the next attempt to find room for one is not due yet.

        Act on the outcomes: send the load's progress, unload the models that must make room, start the
        requests whose model has been loaded, and fail those whose model cannot be loaded.
        """
        for outcome in self._loads.step(self._clock):
            match outcome:
                case LoadAdvanced(name, fraction):
                    self._send(Loading(name, round(fraction, 6)))
                case Evict(model, cause):
                    self._unloader.unload(model, cause)
                case LoadNotNeeded(model):
                    self._start_waiting(model, load_s=0.0)
                case LoadCompleted():
                    self._add_model(outcome)
                case LoadRefused(name, error):
                    self._refuse(name, error)

    def _refuse(self, name: str, error: EngineError) -> None:
        """Fail the requests that wait for the model `name`, because it cannot be loaded."""
        log_event("model_load_failed", cause=str(error), model=name, code=error.code)
        for request in self._requests.select(RequestStatus.WAITING_FOR_MODEL, model=name):
            self._starter.fail(request, error)

    def _add_model(self, load: LoadCompleted) -> None:
        """Add a model that has just been loaded, and start the requests that waited for it."""
        name = load.entry.name
        try:
            runner = self._make_runner(load.entry, load.weights, self._requests)
        except Exception as error:  # mlx-lm cannot make caches for this model
            self._refuse(name, LoadError(name, f"{error} ({type(error).__name__})"))
            return
        model = self._models.add(load.entry, load.weights, runner, self._clock(), load.keep_alive_s)
        log_event("model_loaded", model=name, bytes=model.bytes, load_s=round(load.load_s, 3))
        waiting = self._requests.select(RequestStatus.WAITING_FOR_MODEL, model=name)
        if not any(isinstance(request.op, Load) for request in waiting):
            self._send(Loaded(name, model.bytes, load.load_s))
        self._start_waiting(model, load.load_s)

    def _start_waiting(self, model: LoadedModel, load_s: float) -> None:
        """Start the requests that wait for `model`, which is in memory, and waited `load_s` seconds for its
        load.
        """
        name = model.entry.name
        for request in self._requests.select(RequestStatus.WAITING_FOR_MODEL, model=name):
            if self._models.get(name) is model:  # otherwise evicted for an earlier request; the others wait
                self._starter.start(request, model, load_s)
