"""Carry out the operations that the gateway sends to the engine."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from mlx_server.engine.errors import RequestError
from mlx_server.engine.models.self_test import run_self_test
from mlx_server.engine.scheduling.loaded_models import LoadedModels
from mlx_server.engine.scheduling.request import WAITING, Request
from mlx_server.engine.scheduling.request_table import EngineRequests
from mlx_server.engine.scheduling.starter import Starter
from mlx_server.protocol import (
    Cancel,
    Done,
    Embed,
    Event,
    Failed,
    Generate,
    Load,
    Op,
    Probe,
    Probed,
    Rerank,
    Unload,
    Unloaded,
    Usage,
)
from vestal.config import canonical


class Operations:
    """Carries out the operations that the gateway sends to the engine: accepts and cancels requests, has
    models unloaded, and runs self-tests. `starter` starts the requests whose model is in memory. The events
    that an operation causes at once are passed to `send`. `loaded_as` returns the name under which the model
    of a request is loaded.
    """

    def __init__(
        self,
        requests: EngineRequests,
        models: LoadedModels,
        starter: Starter,
        send: Callable[[Event], None],
        clock: Callable[[], float],
        loaded_as: Callable[[Generate | Embed | Rerank | Load], str],
    ) -> None:
        self._requests, self._models, self._starter = requests, models, starter
        self._loaded_as = loaded_as
        self._send, self._clock = send, clock
        self._refusing = False

    def stop_accepting(self) -> None:
        """Refuse all further requests, because the engine is shutting down."""
        self._refusing = True

    def carry_out(self, op: Op) -> None:
        """Carry out an operation. `Cancel` and `Probe` (a self-test) are completed by this call. A request is
        only accepted or refused; the scheduler runs an accepted one later. An `Unload` operation for a loaded
        model is only recorded, and the scheduler unloads the model once its requests are done. `Shutdown` and
        `Begin` operations are ignored: the scheduler handles `Shutdown`, and the engine's link to the gateway
        handles `Begin`.
        """
        match op:
            case Generate() | Embed() | Rerank() | Load():
                self._accept(replace(op, model=canonical(self._loaded_as(op))))
            case Cancel():
                self._cancel(op.id)
            case Unload():
                self._unload(op.id, canonical(op.model))
            case Probe():
                ok, detail = run_self_test([model.weights for model in self._models.all()])
                self._send(Probed(op.id, ok, detail))

    def _accept(self, op: Generate | Embed | Rerank | Load) -> None:
        if self._refusing:
            self._send(shutting_down(op.id))
            return
        if op.id in self._requests:
            error = RequestError("invalid_request", f"Request id {op.id!r} is in use; send another id.")
            self._send(error.failed(op.id))
            return
        request = Request(op)
        self._requests.add(request)
        if (model := self._models.for_new_request(request.model)) is not None:
            self._starter.start(request, model, load_s=0.0)

    def _cancel(self, request_id: str) -> None:
        """Finish a request, whatever its status. A request with an unknown id has already been answered, so
        nothing is done.
        """
        request = self._requests.get(request_id)
        if request is None:
            return
        now = self._clock()
        model = None if request.status in WAITING else self._models.get(request.model)
        if model is None:
            self._requests.finish(request)
            self._send(Done(request.id, "cancelled", Usage(0, 0)))
            return
        self._send(model.runner.cancel(request, now))
        model.runner.cache_pending_kv()
        if not self._models.is_busy(model):
            self._models.mark_unused(model, now)

    def _unload(self, op_id: str, name: str) -> None:
        """Have the model `name` unloaded once its requests are done, and the operation `op_id` answered then.
        If the model is not loaded, answer the operation at once.
        """
        model = self._models.get(name)
        if model is None:
            self._send(Unloaded(name, op_id))
        else:
            model.unload_ids.append(op_id)


def shutting_down(request_id: str) -> Failed:
    """Return the event that answers a request that cannot start because the engine is shutting down."""
    message = "The engine is shutting down; the request can be sent again."
    return Failed(request_id, "engine_unavailable", message, retryable=True)
