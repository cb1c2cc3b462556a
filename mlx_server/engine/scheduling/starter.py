"""Pass requests to the runners of their models. Generations start when memory has room for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent import futures
from functools import partial
from typing import Any

from mlx_server.engine.errors import EngineError
from mlx_server.engine.log import log_event
from mlx_server.engine.memory.refusals import MustWait
from mlx_server.engine.scheduling.loaded_models import LoadedModel, LoadedModels
from mlx_server.engine.scheduling.memory_queue import MemoryQueue
from mlx_server.engine.scheduling.request import Request, RequestStatus
from mlx_server.engine.scheduling.request_table import EngineRequests
from mlx_server.protocol import Event, Load, Loaded


class Starter:
    """Passes requests to the runners of their loaded models: to be tokenized, then, as soon as memory has
    room, to be prepared and run. The events that this causes are passed to `send`.
    """

    def __init__(
        self,
        requests: EngineRequests,
        queue: MemoryQueue,
        models: LoadedModels,
        send: Callable[[Event], None],
        clock: Callable[[], float],
    ) -> None:
        self._requests, self._queue, self._models = requests, queue, models
        self._send, self._clock = send, clock
        self._new_tokenizations: list[futures.Future[Any]] = []

    def start(self, request: Request, model: LoadedModel, load_s: float) -> None:
        """Begin the work on a request whose model is in memory, by tokenizing it. The request waited `load_s`
        seconds for the model's load.
        """
        now = self._clock()
        self._models.mark_used(model, request.op, now)
        request.load_s = load_s
        if isinstance(request.op, Load):
            self._requests.finish(request)
            self._send(Loaded(request.model, model.bytes, load_s, request.id))
        else:
            self._attempt(request, lambda: self._tokenize(request, model, now))

    def _tokenize(self, request: Request, model: LoadedModel, now: float) -> Sequence[Event]:
        model.runner.tokenize(request, now)
        self._new_tokenizations.append(request.tokenization)
        return ()

    def wait_for_new_tokens(self, timeout_s: float) -> None:
        """Wait, at most `timeout_s` seconds, for the tokenizations that have begun since the last call."""
        new, self._new_tokenizations = self._new_tokenizations, []
        if new:
            futures.wait(new, timeout_s)

    def wait_for_jobs(self, timeout_s: float) -> bool:
        """Wait, at most `timeout_s` seconds, for the background jobs of all requests, and return True, even
        if some jobs are still unfinished. Return False, without waiting, if no job was unfinished at the
        start.
        """
        jobs = [request.tokenization for request in self._requests.select(RequestStatus.TOKENIZING)]
        for request in self._requests.select(RequestStatus.PREPARING):
            jobs += request.jobs.of_workers
        jobs = [job for job in jobs if not job.done()]
        if jobs:
            futures.wait(jobs, timeout_s)
        return bool(jobs)

    def start_tokenized(self) -> None:
        """Advance each request whose tokenization has ended. A generation begins to wait for memory, and an
        `Embed` or `Rerank` begins to run. A generation that needs no further tokens is answered and finished
        instead: it only counts tokens, or an earlier engine has sent its whole answer. Then start the
        generations that wait for memory, in order, up to the first one for which memory has no room.
        """
        self._take_tokens()
        self._start_waiting()

    def _take_tokens(self) -> None:
        """Have the runners advance each request whose tokenization has ended (see `start_tokenized`). The
        requests are advanced in the order in which their tokenization began, whatever their model.
        """
        for request in self._requests.select(RequestStatus.TOKENIZING):
            model = self._models.get(request.model)
            if model is not None and request.tokenization.done():
                self._attempt(request, partial(model.runner.take_tokens, request))
        # A finished job holds its result: pixels of images, or texts and the model that computes them.
        self._new_tokenizations = [job for job in self._new_tokenizations if not job.done()]

    def _start_waiting(self) -> None:
        """Start the generations that wait for memory, in order, up to the first one for which memory has no
        room.
        """
        now = self._clock()
        while (request := self._queue.due(now)) is not None:
            model = self._models.get(request.model)
            if model is None or request.prompt is None:  # the model was unloaded meanwhile
                self._requests.move(request, RequestStatus.WAITING_FOR_MODEL)
                if model is not None:  # the model was also loaded again
                    self.start(request, model, load_s=0.0)
            elif not self._start_generation(request, model, now):
                return

    def _start_generation(self, request: Request, model: LoadedModel, now: float) -> bool:
        """Start a generation, or fail it if it cannot be served or has waited too long. Return False if it
        must wait longer for memory.
        """

        def start() -> Sequence[Event]:
            model.runner.start(request, now)
            return ()

        try:
            self._attempt(request, start)
        except MustWait as wait:
            if (refusal := self._queue.postpone(request, wait, now)) is None:
                return False
            log_event("request_refused", cause=str(refusal), id=request.id, code=refusal.code)
            self.fail(request, refusal)
        return True

    def join(self, request: Request, model: LoadedModel) -> None:
        """Begin to run a request whose background jobs, such as compiling its grammar, have ended: have the
        runner of `model` add it to the batch. If the runner raises an EngineError, fail only this request.
        """

        def join() -> Sequence[Event]:
            model.runner.join(request)
            return ()

        self._attempt(request, join)

    def _attempt(self, request: Request, work: Callable[[], Sequence[Event]]) -> None:
        """Run `work`, one stage of a request, and send its events. If it raises an EngineError, fail only
        this request.

        A MustWait is passed on. Any other error ends the process, because `work` may use MLX. Code that does
        not use MLX runs within `request_fence.confined`, which converts every error to an EngineError.
        """
        try:
            events = work()
        except EngineError as error:
            self.fail(request, error)
        else:
            for event in events:
                self._send(event)

    def fail(self, request: Request, error: EngineError) -> None:
        """Finish a request, and send the event that reports `error`."""
        self._requests.finish(request)
        self._send(error.failed(request.id))
