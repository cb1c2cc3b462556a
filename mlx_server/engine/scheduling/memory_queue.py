"""The queue of requests that wait for memory: which request is tried next, and how long each may
wait. Pure.
"""

from __future__ import annotations

from mlx_server.engine.errors import EngineError
from mlx_server.engine.memory.refusals import MustWait
from mlx_server.engine.memory.wait_policy import RETRY_S, WaitPolicy
from mlx_server.engine.scheduling.request import MemoryWait, Request, RequestStatus
from mlx_server.engine.scheduling.request_table import EngineRequests


class MemoryQueue:
    """The requests with the status WAITING_FOR_MEMORY, first come, first served, whatever their model.
    `policy` decides how long a request may wait.

    All wait behind the first request. If smaller requests overtook a large one, it might never start.
    """

    def __init__(self, requests: EngineRequests, policy: WaitPolicy) -> None:
        self._requests, self._policy = requests, policy

    @property
    def awaited_model(self) -> str | None:
        """Return the name of the model of the first request in the queue; None if no request waits. This
        model must not be unloaded while its request waits (see `LoadedModels`).
        """
        first = self._first()
        return first.model if first else None

    def due(self, now: float) -> Request | None:
        """Return the first request if it is time to try to start it; else None."""
        first = self._first()
        if first is None or (first.memory_wait and now < first.memory_wait.retry_at_s):
            return None
        return first

    def postpone(self, request: Request, wait: MustWait, now: float) -> EngineError | None:
        """Record that memory had no room for `request`, so that the request is tried again later. `wait` is
        the exception that says why.

        Return None. If the request has waited as long as the policy allows, return the error for its client
        instead; the caller must then fail the request.
        """
        since_s = request.memory_wait.since_s if request.memory_wait else now
        request.memory_wait = MemoryWait(since_s, now + RETRY_S)
        # Requests that a crash interrupted wait longer, because Metal frees the dead engine's memory slowly.
        patient = wait.held_by_requests or request.resumes
        return wait.refusal if self._policy.is_over(since_s, patient, now) else None

    def _first(self) -> Request | None:
        return self._requests.first(RequestStatus.WAITING_FOR_MEMORY)
