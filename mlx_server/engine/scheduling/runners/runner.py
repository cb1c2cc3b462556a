"""The interface of the runner of a loaded model, as the scheduler uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from mlx_server.engine.errors import wrong_kind
from mlx_server.engine.scheduling.request import PreparedPrompt, Request, RequestStatus
from mlx_server.engine.scheduling.request_table import EngineRequests
from mlx_server.protocol import Done, Event, Generate, Usage


class Runner:
    """Runs the requests of one model that are TOKENIZING, PREPARING or RUNNING. Only the MLX thread may use
    it.
    """

    def __init__(self, model: str, requests: EngineRequests) -> None:
        self._model, self._requests = model, requests

    @property
    def can_step(self) -> bool:
        """Return True if the MLX thread has work now, and not only the background workers."""
        running = self._requests.any(RequestStatus.RUNNING, model=self._model)
        tokenizing = self._requests.select(RequestStatus.TOKENIZING, model=self._model)
        tokenized = any(request.tokenization.done() for request in tokenizing)
        return running or tokenized or bool(self.prepared())

    # --- tokens ---

    def tokenize(self, request: Request, now: float) -> None:
        """Begin to make the request's tokens on a background thread: it is TOKENIZING afterwards. Raises
        RequestError, and leaves the request unchanged, if the model cannot do what it asks for.
        """
        raise NotImplementedError

    def take_tokens(self, request: Request) -> Sequence[Event]:
        """Move a tokenized request on: it is WAITING_FOR_MEMORY, RUNNING or FINISHED afterwards.

        Return the events this causes. Raises EngineError if no tokens could be made.
        """
        raise NotImplementedError

    def check(self, op: Generate) -> Future[PreparedPrompt]:
        """Begin to make the prompt of a request that is only checked, on a background thread. Any thread may
        call this.

        Raises RequestError if the model does not generate, and RuntimeError if it has just been unloaded.
        """
        raise wrong_kind(op, "embed")

    # --- preparation ---

    def start(self, request: Request, now: float) -> None:
        """Reserve memory for a generation, and prepare it: it is PREPARING or RUNNING afterwards.

        Raises EngineError or MustWait, and then leaves the request unchanged.
        """
        raise NotImplementedError

    def prepared(self) -> list[Request]:
        """Return the requests that are PREPARING and whose background jobs have ended."""
        preparing = self._requests.select(RequestStatus.PREPARING, model=self._model)
        return [request for request in preparing if request.jobs.done]

    def join(self, request: Request) -> None:
        """Let a prepared request run. Raises EngineError if its preparation has failed."""
        raise NotImplementedError

    # --- running ---

    def step(self, clock: Callable[[], float]) -> Iterator[Event]:
        """Advance the running requests by one step, and yield the events this causes."""
        raise NotImplementedError

    def cancel(self, request: Request, now: float) -> Done:
        """Finish a request that is TOKENIZING, PREPARING or RUNNING, and free its place at once."""
        if request.status is RequestStatus.TOKENIZING:
            request.tokenization.cancel()  # the result of a job that has begun is dropped
        elif request.status is RequestStatus.PREPARING:
            request.jobs.cancel()
        self._requests.finish(request)
        return Done(request.id, "cancelled", Usage(0, 0))

    def kv_bytes(self) -> int:
        """Return the bytes of keys and values that the running requests hold."""
        return 0

    def feature_bytes(self) -> int:
        """Return the bytes of the features of images that are kept for later requests."""
        return 0

    def cache_pending_kv(self) -> None:
        """Store in the prompt cache the keys and values that the last step has left to be stored."""

    def cache_all_kv(self) -> None:
        """Put the keys and values of all running requests into the prompt cache."""

    def warm_up(self) -> None:
        """Use an idle moment to prepare what a later request would have to wait for."""

    def close(self) -> None:
        """Finish all requests without sending events, and free what they hold.

        Requests that wait for memory stay unfinished until the model is loaded again; their prepared prompts
        are dropped.
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
