"""What the scheduler asks of the runner of any loaded model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mlx_server.engine.scheduling.request import Request, RequestStatus
from mlx_server.engine.scheduling.request_table import RequestTable
from mlx_server.protocol import Done, Event


class Runner:
    """The requests of one model that are PREPARING or RUNNING. Used from the MLX thread only."""

    def __init__(self, model: str, requests: RequestTable) -> None:
        self._model, self._requests = model, requests

    @property
    def can_step(self) -> bool:
        """Return True if the MLX thread has work now, and not only the background workers."""
        return self._requests.any(RequestStatus.RUNNING, model=self._model) or bool(self.prepared())

    def start(self, request: Request, now: float) -> Sequence[Event]:
        """Take up a request: it is PREPARING, RUNNING or FINISHED afterwards. Return the events this causes.

        Raises RequestError, InsufficientMemory or MustWait, and then the request is as before.
        """
        raise NotImplementedError

    def prepared(self) -> list[Request]:
        """Return the requests that are PREPARING and whose background jobs have ended."""
        preparing = self._requests.select(RequestStatus.PREPARING, model=self._model)
        return [request for request in preparing if request.jobs.done]

    def join(self, request: Request) -> None:
        """Let a prepared request run. Raises RequestError if its preparation has failed."""
        raise NotImplementedError

    def step(self, clock: Callable[[], float]) -> Iterator[Event]:
        """Advance the running requests by one step, and yield the events this causes."""
        raise NotImplementedError

    def cancel(self, request: Request, now: float) -> Done:
        """Finish a request that is PREPARING or RUNNING, and free its place at once."""
        raise NotImplementedError

    def kv_bytes(self) -> int:
        """Return the bytes of keys and values that the running requests hold."""
        return 0

    def cache_pending_kv(self) -> None:
        """Put the keys and values that the last step left for later into the prompt cache."""

    def cache_all_kv(self) -> None:
        """Put the keys and values of all running requests into the prompt cache."""

    def warm_up(self) -> None:
        """Use an idle moment to make what a later request would wait for."""

    def close(self) -> None:
        """Finish all requests without sending events, and free what they hold."""
        for request in self._requests.select(RequestStatus.PREPARING, model=self._model):
            request.jobs.cancel()
            self._requests.finish(request)
        for request in self._requests.select(RequestStatus.RUNNING, model=self._model):
            self._requests.finish(request)
