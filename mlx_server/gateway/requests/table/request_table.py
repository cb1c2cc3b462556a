"""Decide, for all requests of the gateway, which are sent to the engine, which wait, and which fail. Pure.

The dispatcher reports events by method calls with the time `now` (monotonic seconds), and carries out the
actions that the calls return. When the link to an engine closes, `engine_lost` parks the engine's requests.
When the engine's process has exited, `engine_died` records why, and `crash_policy` decides for each request
whether it continues. `engine_ready` sends the parked requests to the next engine.
"""

from __future__ import annotations

from mlx_server.gateway.requests.resumed import ResumedRequest
from mlx_server.gateway.requests.table.actions import (
    CRASHED_TOO_OFTEN,
    KILLED_TOO_OFTEN,
    Action,
    CancelOnEngine,
    FailRequest,
    SendToEngine,
)
from mlx_server.gateway.requests.table.admission import Admission, Lane
from mlx_server.gateway.requests.table.crash_policy import EngineDeath
from mlx_server.gateway.requests.table.engine_wait import RequestLimits, next_start
from mlx_server.gateway.requests.table.request_lifecycle import WAITING_PHASES, RequestLifecycle, RequestPhase


class RequestTable:
    """Tracks the unfinished requests of all clients, and decides which of them run, wait or fail."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._admissions = {lane: Admission(limits.max_running, limits.max_queued) for lane in Lane}
        self._requests: dict[str, tuple[RequestLifecycle, Lane]] = {}
        self._engine_is_ready = False
        self._loaded_early: set[str] = set()  # models that a starting engine has loaded
        self._no_engine_since = 0.0
        self._lost = 0  # requests that ran on the engine whose death is not explained yet

    # --- queries ---

    @property
    def max_running(self) -> int:
        """Return how many requests of each lane (a class such as embeddings) may run at once."""
        return self._limits.max_running

    def get(self, request_id: str) -> RequestLifecycle | None:
        """Return the request; None if it has ended or never existed."""
        entry = self._requests.get(request_id)
        return entry[0] if entry else None

    def is_running(self, request_id: str) -> bool:
        return self._running(request_id) is not None

    def count(self, phase: RequestPhase, lane: Lane | None = None) -> int:
        """Return how many requests are in this phase; if `lane` is given, only those in that lane."""
        return sum(
            request.phase is phase and lane in (None, of_lane) for request, of_lane in self._requests.values()
        )

    # --- clients ---

    def submit(
        self,
        request_id: str,
        client: str,
        lane: Lane,
        now: float,
        model: str = "",
        resumed: ResumedRequest | None = None,
    ) -> list[Action]:
        """Add a new or a resumed request, and return the actions to carry out: those that start waiting
        requests, perhaps this one. Raises QueueFull if the queue is full; then the request is not added.
        `client` is any string that identifies who sent it, `model` the model that it needs (empty: unknown),
        and `resumed` what is known from an earlier run.
        """
        was_accepted = resumed is not None and resumed.was_accepted
        self._admissions[lane].enqueue(request_id, client, was_accepted=was_accepted)
        request = RequestLifecycle(request_id, now, model)
        if resumed:
            request.emitted, request.was_accepted = resumed.emitted, resumed.was_accepted
        self._requests[request_id] = (request, lane)
        return self._start_waiting()

    def cancel(self, request_id: str) -> list[Action]:
        """End a cancelled request. Return the actions to carry out; [] if the request has already ended."""
        request = self.get(request_id)
        if request is None:
            return []
        was_running = request.phase is RequestPhase.RUNNING
        request.cancel()
        self._forget(request_id)
        return [*([CancelOnEngine(request_id)] if was_running else []), *self._start_waiting()]

    # --- engines that start and die ---

    def model_loaded_early(self, model: str) -> list[Action]:
        """Record that a starting engine has loaded `model`. Return the actions that start the parked requests
        for that model.
        """
        self._loaded_early.add(model)
        return self._start_waiting()

    def engine_ready(self) -> list[Action]:
        """Record that an engine accepts requests for any model. Return the actions that start waiting
        requests, as many as may run now.
        """
        self._engine_is_ready = True
        return self._start_waiting()

    def engine_lost(self, now: float) -> None:
        """Make all running requests wait for the next engine, because their engine's link has closed."""
        self._engine_gone(now)
        for request, _ in self._requests.values():
            if request.phase is RequestPhase.RUNNING:
                request.engine_lost(now)
                self._lost += 1

    def engine_died(self, death: EngineDeath) -> list[Action]:
        """Record why the engine died, after `engine_lost` was called. Return the actions that fail the
        requests that `crash_policy` does not let continue. The policy counts for each request how often in a
        row somebody killed an engine that ran it. If somebody kills an engine that ran no request, requests
        are evidently not the cause of the kills, so that these counts are reset to 0 for all requests.
        """
        lost, self._lost = self._lost, 0
        failed: list[Action] = []
        for request, _ in list(self._requests.values()):
            if death is EngineDeath.UNKNOWN_KILL and lost == 0:
                request.crashes.forget_kills()
            elif not request.engine_died(death, alone=lost == 1):
                request.fail()
                self._forget(request.id)
                why = CRASHED_TOO_OFTEN if death is EngineDeath.OWN_FAULT else KILLED_TOO_OFTEN
                failed.append(FailRequest(request.id, "engine_crashed", why))
        return failed

    def returned_by_engine(self, request_id: str, now: float) -> bool:
        """Park a request that an engine returns unfinished because the engine shuts down. No further request
        is sent to that engine. Return False if the request is not running.
        """
        request = self._running(request_id)
        if request is None:
            return False
        request.engine_lost(now)
        self._lost += 1
        self._engine_gone(now)
        return True

    def tick(self, now: float, trial_at: float | None = None) -> list[Action]:
        """Return the actions that fail the requests that have waited too long for an engine. `trial_at` is
        when a circuit breaker lets the next engine start, perhaps a past time; None if no breaker is open.
        This time may lengthen the wait (`RequestLimits.deadline`). The errors name it if it is still to come.
        """
        if self._engine_is_ready:
            return []
        overdue = [
            request.id
            for request in self._waiting()
            if now >= self._limits.deadline(request, self._no_engine_since, trial_at)
        ]
        message = "The engine has not come back in time."
        if trial_at is None or trial_at <= now:
            return self._fail(overdue, message)
        return self._fail(overdue, f"{message} {next_start(trial_at - now)}", trial_at - now)

    def refusal(self, now: float, trial_at: float | None) -> FailRequest | None:
        """Return the failure of a request that is submitted now, if the next engine starts later than a new
        request may wait; else None. `trial_at` is when a circuit breaker lets that engine start; None if no
        breaker is open.
        """
        if self._engine_is_ready or trial_at is None or trial_at - now <= self._limits.max_wait_s:
            return None
        wait_s = trial_at - now
        return FailRequest("", "engine_unavailable", f"The engine is down. {next_start(wait_s)}", wait_s)

    def give_up(self, message: str) -> list[Action]:
        """Return the actions that fail all waiting requests with `message`, because no engine will start."""
        return self._fail([request.id for request in self._waiting()], message)

    # --- progress of one request ---

    def take_token(self, request_id: str, index: int, token: int) -> tuple[bool, list[Action]]:
        """Record a token of the engine. Return whether to send the token to the client, and the actions to
        carry out. Raises TokenGap if tokens before it are missing.
        """
        request = self._running(request_id)
        if request is None:
            return False, []
        ran_alone = request.must_run_alone
        is_new = request.take_token(index, token)
        return is_new, self._start_waiting() if ran_alone and not request.must_run_alone else []

    def worked(self, request_id: str, work_done: float) -> None:
        """Record a running request's progress towards its next token; `work_done` is any growing number."""
        if (request := self._running(request_id)) is not None:
            request.worked(work_done)

    def refused(self, request_id: str) -> list[Action]:
        """Remove a request that the engine can never serve. Return the actions that cancel it on the engine
        and start waiting requests; [] if it has already ended.
        """
        request = self.get(request_id)
        if request is None:
            return []
        was_running = request.phase is RequestPhase.RUNNING
        request.fail()
        self._forget(request_id)
        return [*([CancelOnEngine(request_id)] if was_running else []), *self._start_waiting()]

    def finished(self, request_id: str) -> list[Action]:
        """Record that the engine has finished the request, with success or not. Return the actions that start
        waiting requests; [] if the request is not running.
        """
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
        """Start the waiting requests that may run now, and return the actions that send them to the engine.
        Parked requests (those whose engine died or was replaced) start before queued ones. A suspect is a
        parked request that `crash_policy` lets run only alone. It starts when nothing else runs, after the
        queued requests that have waited longer. If a suspect has two strikes (two engines crashed while they
        ran it), all queued requests wait, because its next run shows whether it is the cause.
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
        if not suspects:
            return [*started, *self._start_queued()]
        if not any(request.crashes.has_two_strikes for request in suspects):
            started += self._start_queued(before=min(request.waiting_since for request in suspects))
        if started or running:
            return started
        # The suspect with the fewest kills goes first, so that each gets its turn.
        return [self._start(min(suspects, key=lambda request: request.crashes.kills_alone))]

    def _may_start_early(self, request: RequestLifecycle) -> bool:
        """Return whether a request may run on an engine that is not ready for all models yet. A suspect (a
        request that may run only alone) may not, because a crash at this time would count as a failed start
        of the engine.
        """
        return (
            request.phase is RequestPhase.PARKED
            and not request.must_run_alone
            and request.model in self._loaded_early
        )

    def _start_queued(self, before: float | None = None) -> list[Action]:
        """Start the queued requests of each lane while it has free slots, and return the actions that send
        them. If `before` is given, start requests of a lane only while a request that was queued before that
        time still waits in it. A lane is a class of requests with slots and a queue of its own.
        """
        started: list[Action] = []
        for lane, admission in self._admissions.items():
            while before is None or self._is_queued_since(before, lane):
                if (request_id := admission.admit_next()) is None:
                    break
                started.append(self._start(self._requests[request_id][0]))
        return started

    def _is_queued_since(self, before: float, in_lane: Lane) -> bool:
        return any(
            request.phase is RequestPhase.QUEUED and lane is in_lane and request.waiting_since < before
            for request, lane in self._requests.values()
        )

    def _start(self, request: RequestLifecycle) -> Action:
        request.start()
        return SendToEngine(request.id)

    def _fail(self, request_ids: list[str], message: str, retry_after_s: float | None = None) -> list[Action]:
        for request_id in request_ids:
            self._requests[request_id][0].fail()
            self._forget(request_id)
        return [FailRequest(each, "engine_unavailable", message, retry_after_s) for each in request_ids]

    def _forget(self, request_id: str) -> None:
        _, lane = self._requests.pop(request_id)
        self._admissions[lane].release(request_id)
