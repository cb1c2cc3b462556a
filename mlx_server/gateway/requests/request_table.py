"""Decides, for all requests of the gateway, which are sent to the engine, which wait, and which fail. Pure.

The dispatcher reports what happens by method calls with the time `now` (monotonic seconds), and carries out
the actions that they return. When an engine dies, `engine_lost` parks its requests or fails them, as
`crash_policy` decides for each; `engine_ready` sends the parked ones to the next engine.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlx_server.gateway.requests.admission import Admission, Lane
from mlx_server.gateway.requests.request_lifecycle import WAITING_PHASES, RequestLifecycle, RequestPhase


@dataclass(frozen=True)
class RequestLimits:
    """Bounds of each lane: how many requests run and wait, and how long one waits without an engine."""

    max_running: int
    max_queued: int
    max_wait_s: float


@dataclass(frozen=True)
class SendToEngine:
    """Send the request to the engine, with the tokens that its client already has."""

    id: str


@dataclass(frozen=True)
class CancelOnEngine:
    """Have the engine drop the request."""

    id: str


@dataclass(frozen=True)
class FailRequest:
    """Report to the client that its request failed."""

    id: str
    code: str
    message: str


Action = SendToEngine | CancelOnEngine | FailRequest

CRASHED_TOO_OFTEN = (
    "The engine crashed three times or more while it worked on this request, the last time on this request "
    "alone and without getting any further. The request is not repeated again."
)


class RequestTable:
    """All requests that have not ended. A request that ends is forgotten at once."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._admissions = {lane: Admission(limits.max_running, limits.max_queued) for lane in Lane}
        self._requests: dict[str, tuple[RequestLifecycle, Lane]] = {}
        self._engine_is_ready = False
        self._loaded_early: set[str] = set()  # models of an engine that is not ready yet
        self._no_engine_since = 0.0

    # --- queries ---

    def get(self, request_id: str) -> RequestLifecycle | None:
        """Return the request, or None where it has ended."""
        entry = self._requests.get(request_id)
        return entry[0] if entry else None

    def is_running(self, request_id: str) -> bool:
        return self._running(request_id) is not None

    def count(self, phase: RequestPhase, lane: Lane | None = None) -> int:
        """Return how many requests are in the phase, in the lane where one is given."""
        return sum(
            request.phase is phase and lane in (None, of_lane) for request, of_lane in self._requests.values()
        )

    # --- clients ---

    def submit(self, request_id: str, client: str, lane: Lane, now: float, model: str = "") -> list[Action]:
        """Add a new request. Raises QueueFull, and then the request is not added."""
        self._admissions[lane].enqueue(request_id, client)
        self._requests[request_id] = (RequestLifecycle(request_id, now, model), lane)
        return self._start_waiting()

    def cancel(self, request_id: str) -> list[Action]:
        """End a request whose client has disconnected. Do nothing where it has ended."""
        request = self.get(request_id)
        if request is None:
            return []
        was_running = request.phase is RequestPhase.RUNNING
        request.cancel()
        self._forget(request_id)
        return [*([CancelOnEngine(request_id)] if was_running else []), *self._start_waiting()]

    # --- engines that start and die ---

    def model_loaded_early(self, model: str) -> list[Action]:
        """Note that a starting engine has loaded `model`, and start what was parked with that model."""
        self._loaded_early.add(model)
        return self._start_waiting()

    def engine_ready(self) -> list[Action]:
        """Note that an engine is ready for any model, and start what waits."""
        self._engine_is_ready = True
        return self._start_waiting()

    def engine_lost(self, now: float, crashed: bool = True) -> list[Action]:
        """Park all that ran on an engine that has exited, or fail it where `crash_policy` says so.

        `crashed` is False where the engine was asked to exit.
        """
        self._engine_gone(now)
        failed: list[Action] = []
        for request, _ in list(self._requests.values()):
            if request.phase is not RequestPhase.RUNNING:
                continue
            if request.engine_lost(now, crashed) is RequestPhase.FAILED:
                self._forget(request.id)
                failed.append(FailRequest(request.id, "engine_crashed", CRASHED_TOO_OFTEN))
        return failed

    def returned_by_engine(self, request_id: str, now: float) -> bool:
        """Park a request that an engine will not finish, as it shuts down; nothing more is sent to that
        engine.

        Return False where the request is not running.
        """
        request = self._running(request_id)
        if request is None:
            return False
        request.returned_by_engine(now)
        self._engine_gone(now)
        return True

    def tick(self, now: float) -> list[Action]:
        """Fail the requests that have waited for an engine for too long."""
        if self._engine_is_ready:
            return []
        max_wait_s = self._limits.max_wait_s
        overdue = [
            request.id
            for request in self._waiting()
            if now - max(request.waiting_since, self._no_engine_since) >= max_wait_s
        ]
        return self._fail(overdue, f"The engine has not come back within {max_wait_s:g} s.")

    def give_up(self, message: str) -> list[Action]:
        """Fail all requests that wait: no engine will start."""
        return self._fail([request.id for request in self._waiting()], message)

    # --- progress of one request ---

    def take_token(self, request_id: str, index: int, token: int) -> tuple[bool, list[Action]]:
        """Return whether to send the token to the client, and the actions to carry out. Raises TokenGap."""
        request = self._running(request_id)
        if request is None:
            return False, []
        ran_alone = request.must_run_alone
        is_new = request.take_token(index, token)
        return is_new, self._start_waiting() if ran_alone and not request.must_run_alone else []

    def worked(self, request_id: str, work_done: float) -> None:
        """Note progress towards the next token; see `RequestLifecycle.worked`."""
        if (request := self._running(request_id)) is not None:
            request.worked(work_done)

    def finished(self, request_id: str) -> list[Action]:
        """Note that the engine has finished the request, with success or not, and start what waits."""
        request = self._running(request_id)
        if request is None:
            return []
        request.finish()
        self._forget(request_id)
        return self._start_waiting()

    # --- inside ---

    def _running(self, request_id: str) -> RequestLifecycle | None:
        request = self.get(request_id)
        return request if request is not None and request.phase is RequestPhase.RUNNING else None

    def _waiting(self) -> list[RequestLifecycle]:
        return [request for request, _ in self._requests.values() if request.phase in WAITING_PHASES]

    def _engine_gone(self, now: float) -> None:
        self._loaded_early.clear()
        if self._engine_is_ready:
            self._engine_is_ready, self._no_engine_since = False, now

    def _start_waiting(self) -> list[Action]:
        """Start the requests that may run now: the parked before the queued, a suspect only alone.

        A suspect is a request that `crash_policy` lets run only alone.
        """
        requests = [request for request, _ in self._requests.values()]
        if not self._engine_is_ready:
            return [self._start(request) for request in requests if self._may_start_early(request)]
        running = [request for request in requests if request.phase is RequestPhase.RUNNING]
        if any(request.must_run_alone for request in running):
            return []
        parked = [request for request in requests if request.phase is RequestPhase.PARKED]
        suspects = [request for request in parked if request.must_run_alone]
        started = [self._start(request) for request in parked if not request.must_run_alone]
        if suspects:  # the queue waits until each suspect has run
            return started if started or running else [self._start(suspects[0])]
        return [*started, *self._start_queued()]

    def _may_start_early(self, request: RequestLifecycle) -> bool:
        """Return whether a request may run on an engine that is not ready for all models yet.

        A suspect may not: if it crashed the engine now, that would count as a failed start.
        """
        return (
            request.phase is RequestPhase.PARKED
            and not request.must_run_alone
            and request.model in self._loaded_early
        )

    def _start_queued(self) -> list[Action]:
        started: list[Action] = []
        for admission in self._admissions.values():
            while (request_id := admission.admit_next()) is not None:
                started.append(self._start(self._requests[request_id][0]))
        return started

    def _start(self, request: RequestLifecycle) -> Action:
        request.start()
        return SendToEngine(request.id)

    def _fail(self, request_ids: list[str], message: str) -> list[Action]:
        for request_id in request_ids:
            self._requests[request_id][0].fail()
            self._forget(request_id)
        return [FailRequest(request_id, "engine_unavailable", message) for request_id in request_ids]

    def _forget(self, request_id: str) -> None:
        _, lane = self._requests.pop(request_id)
        self._admissions[lane].release(request_id)
