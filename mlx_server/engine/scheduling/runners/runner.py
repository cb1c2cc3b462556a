"""The interface between the scheduler and the runner of a loaded model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from mlx_server.engine.errors import wrong_kind
from mlx_server.engine.scheduling.request import PreparedPrompt, Request, RequestStatus
from mlx_server.engine.scheduling.request_table import EngineRequests
from mlx_server.protocol import Done, Event, Generate, Usage


class Runner:
    """Runs those requests of one model that are TOKENIZING, PREPARING or RUNNING. Only the MLX thread may use
    a runner, except where a method says otherwise.
    """

    can_pause = False
    """Whether a step can be paused in its middle, so that other models can make a step."""

    def __init__(self, model: str, requests: EngineRequests) -> None:
        self._model, self._requests = model, requests

    @property
    def can_step(self) -> bool:
        """Return whether the MLX thread can advance a request of the model at this time, instead of only
        waiting for background jobs.
        """
        running = self._requests.any(RequestStatus.RUNNING, model=self._model)
        tokenizing = self._requests.select(RequestStatus.TOKENIZING, model=self._model)
        tokenized = any(request.tokenization.done() for request in tokenizing)
        return running or tokenized or bool(self.prepared())

    # --- tokens ---

    def tokenize(self, request: Request, now: float) -> None:
        """Begin to tokenize the request on a background thread, and move it to TOKENIZING. If the model
        cannot do what the request asks for, raise RequestError and leave the request unchanged.
        """
        raise NotImplementedError

    def take_tokens(self, request: Request) -> Sequence[Event]:
        """Move a request whose tokenization has ended to WAITING_FOR_MEMORY, RUNNING or FINISHED.

        Return the events that this causes. Raises EngineError if the tokenization has failed.
        """
        raise NotImplementedError

    def check(self, op: Generate) -> Future[PreparedPrompt]:
        """Begin to prepare, on a background thread, the prompt of an operation that only asks whether it can
        be served (`check_only`). Return the future of the prepared prompt. Any thread may call this method.

        Raises RequestError if the model does not generate text, and RuntimeError if it has just been
        unloaded.
        """
        raise wrong_kind(op, "embed")

    # --- preparation ---

    def start(self, request: Request, now: float) -> None:
        """Reserve memory for a generation, and begin to prepare it. Move the request to PREPARING or RUNNING.

        Raises EngineError if the request cannot be served, and MustWait if memory has no room at this time.
        The request is then unchanged.
        """
        raise NotImplementedError

    def prepared(self) -> list[Request]:
        """Return the requests that are PREPARING and whose background jobs have ended."""
        preparing = self._requests.select(RequestStatus.PREPARING, model=self._model)
        return [request for request in preparing if request.jobs.done]

    def join(self, request: Request) -> None:
        """Move a prepared request to RUNNING. Raises EngineError if its preparation has failed."""
        raise NotImplementedError

    # --- running ---

    def step(self, clock: Callable[[], float], share_s: float | None = None) -> Iterator[Event]:
        """Advance the running requests by one step, and yield the events that this causes.

        `share_s` is how many seconds the step should take if it can be paused (`can_pause`); None if no model
        has work whose steps cannot be paused.
        """
        raise NotImplementedError

    def cancel(self, request: Request, now: float) -> Done:
        """Finish at once a request that is TOKENIZING, PREPARING or RUNNING, and return the event that
        answers it.
        """
        if request.status is RequestStatus.TOKENIZING:
            request.tokenization.cancel()  # the result of a job that has begun is dropped
        elif request.status is RequestStatus.PREPARING:
            request.jobs.cancel()
        self._requests.finish(request)
        return Done(request.id, "cancelled", Usage(0, 0))

    def kv_bytes(self) -> int:
        """Return how many bytes of keys and values the running requests hold."""
        return 0

    def feature_bytes(self) -> int:
        """Return the size in bytes of the image features that are cached for later requests."""
        return 0

    def cache_pending_kv(self) -> None:
        """Store the keys and values of the last step in the prompt cache, if that was deferred."""

    def cache_all_kv(self) -> None:
        """Store the keys and values of all running requests in the prompt cache."""

    def warm_up(self) -> None:
        """Load, while the engine is idle, what the first request that needs it would otherwise wait for, such
        as the vocabulary for grammars. By default, nothing is loaded.
        """

    def close(self) -> None:
        """Finish the requests that are TOKENIZING, PREPARING or RUNNING, without sending events for them, and
        free the runner's resources.

        Requests that are WAITING_FOR_MEMORY do not finish, but lose their prepared prompts. They then wait
        for the model to be loaded again, and for a new runner to prepare them.
        """
        for request in self._requests.select(RequestStatus.TOKENIZING, model=self._model):
            request.tokenization.cancel()
            self._requests.finish(request)
        for request in self._requests.select(RequestStatus.PREPARING, model=self._model):
            request.jobs.cancel()
            self._requests.finish(request)
        for request in self._requests.select(RequestStatus.RUNNING, model=self._model):
            self._requests.finish(request)
        for request in self._requests.select(RequestStatus.WAITING_FOR_MEMORY, model=self._model):
            request.prompt = None
