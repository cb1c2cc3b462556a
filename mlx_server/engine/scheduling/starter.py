"""Passes requests whose model is loaded to the model's runner, generations as memory allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlx_server.engine.errors import EngineError
from mlx_server.engine.log import log_event
from mlx_server.engine.memory.guard import MemoryGuard
from mlx_server.engine.memory.refusals import MustWait
from mlx_server.engine.scheduling.loaded_models import LoadedModel, LoadedModels
from mlx_server.engine.scheduling.memory_queue import MemoryQueue
from mlx_server.engine.scheduling.request import Request, RequestStatus
from mlx_server.engine.scheduling.request_table import RequestTable
from mlx_server.protocol import Event, Generate, Load, Loaded


class Starter:
    """Starts requests. `send` is given the events that this causes."""

    def __init__(
        self,
        requests: RequestTable,
        queue: MemoryQueue,
        models: LoadedModels,
        guard: MemoryGuard,
        send: Callable[[Event], None],
        clock: Callable[[], float],
    ) -> None:
        self._requests, self._queue, self._models, self._guard = requests, queue, models, guard
        self._send, self._clock = send, clock

    def start(self, request: Request, model: LoadedModel, load_s: float) -> None:
        """Start a request whose model took `load_s` to load. A generation takes its turn for memory."""
        now = self._clock()
        self._models.mark_used(model, request.op.keep_alive_s, now)
        request.load_s = load_s
        if isinstance(request.op, Load):
            self._requests.finish(request)
            self._send(Loaded(request.model, model.bytes, load_s, request.id))
        elif isinstance(request.op, Generate):
            self._requests.move(request, RequestStatus.WAITING_FOR_MEMORY)
            self.start_waiting()
        else:
            self._attempt(request, lambda: model.runner.start(request, now))

    def start_waiting(self) -> None:
        """Start the generations that wait for memory, in order, up to the first that finds none."""
        now = self._clock()
        while (request := self._queue.due(now)) is not None:
            model = self._models.get(request.model)
            if model is None:  # unloaded since the request came
                request.memory_wait = None
                self._requests.move(request, RequestStatus.WAITING_FOR_MODEL)
            elif not self._start_generation(request, model, now):
                return

    def _start_generation(self, request: Request, model: LoadedModel, now: float) -> bool:
        """Start a generation or fail it. Return False if it must wait on."""

        def start() -> Sequence[Event]:
            if request.memory_wait:  # do not tokenize again while the tokens that were counted do not fit
                self._guard.check(request.model, *request.memory_wait.needed_tokens)
            return model.runner.start(request, now)

        try:
            self._attempt(request, start)
        except MustWait as wait:
            if (refusal := self._queue.postpone(request, wait, now)) is None:
                return False
            log_event("request_refused", cause=str(refusal), id=request.id, code=refusal.code)
            self.fail(request, refusal)
        return True

    def join(self, request: Request, model: LoadedModel) -> None:
        """Let a request run whose background jobs have ended."""

        def join() -> Sequence[Event]:
            model.runner.join(request)
            return ()

        self._attempt(request, join)

    def _attempt(self, request: Request, prepare: Callable[[], Sequence[Event]]) -> None:
        """Run a part of a request's preparation; an error in it fails this request alone. Raises MustWait.

        Everything that depends on what a client sent is made inside this call: normalized messages, the chat
        template's text, tokens, the grammar.
        """
        try:
            events = prepare()
        except EngineError as error:
            self.fail(request, error)
        else:
            for event in events:
                self._send(event)

    def fail(self, request: Request, error: EngineError) -> None:
        """Finish a request and tell the gateway why it cannot be served."""
        self._requests.finish(request)
        self._send(error.failed(request.id))
