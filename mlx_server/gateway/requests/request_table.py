"""All requests of the gateway and the engine's coming and going: decides who runs, waits, goes on or fails.

Pure: events come in as method calls with `now`, decisions go out as actions for the dispatcher to carry out.
Generations, embeddings and control operations (load, unload) have lanes of their own, so that an embedding of
20 ms does not wait behind five long answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mlx_server.gateway.requests.admission import Admission, QueueFull
from mlx_server.gateway.requests.request_lifecycle import WAITING, RequestLife, RequestPhase, TokenGap


class Lane(StrEnum):
    GENERATE = "generate"
    EMBED = "embed"
    CONTROL = "control"


@dataclass(frozen=True)
class Limits:
    """`max_wait_s` bounds how long a request waits for an engine to come (back)."""

    max_running: int
    max_queued: int
    max_wait_s: float


@dataclass(frozen=True)
class Start:
    """Send the request to the engine, with what it has emitted."""

    id: str


@dataclass(frozen=True)
class Withdraw:
    """Tell the engine to drop the request."""

    id: str


@dataclass(frozen=True)
class Refuse:
    """Fail the request towards its client."""

    id: str
    code: str
    message: str


Action = Start | Withdraw | Refuse

CRASHED = (
    "this request was in flight in three engine crashes or more, at last alone and without getting any "
    "further; it is given up"
)


class RequestTable:
    """Owner of every request's life. Finished requests are forgotten at once."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lanes = {lane: Admission(limits.max_running, limits.max_queued) for lane in Lane}
        self._lives: dict[str, tuple[RequestLife, Lane]] = {}
        self._engine_here = False
        self._models_here: set[str] = set()  # of an engine that is not ready yet
        self._away_since = 0.0

    # --- what is asked of it ---

    def life(self, request_id: str) -> RequestLife | None:
        """The request, if it has not ended."""
        entry = self._lives.get(request_id)
        return entry[0] if entry else None

    def is_running(self, request_id: str) -> bool:
        life = self.life(request_id)
        return life is not None and life.phase is RequestPhase.RUNNING

    def count(self, phase: RequestPhase, lane: Lane | None = None) -> int:
        """How many requests are in the phase (in the lane)."""
        return sum(life.phase is phase and lane in (None, its) for life, its in self._lives.values())

    # --- what happens ---

    def submit(self, request_id: str, client: str, lane: Lane, now: float, model: str = "") -> list[Action]:
        """A new request. Raises QueueFull, and then knows nothing of it."""
        self._lanes[lane].enqueue(request_id, client)
        self._lives[request_id] = (RequestLife(request_id, now, model), lane)
        return self._fill()

    def model_came(self, model: str) -> list[Action]:
        """An engine that is not ready yet has loaded this one: what was parked with it need not wait."""
        self._models_here.add(model)
        return self._fill()

    def engine_came(self) -> list[Action]:
        """An engine is ready, for whatever model."""
        self._engine_here = True
        return self._fill()

    def engine_left(self, now: float, blame: bool = True) -> list[Action]:
        """All that ran is parked, or refused at its last strike; `blame` as in `RequestLife.engine_lost`."""
        self._engine_goes(now)
        refused: list[Action] = []
        for life, _ in list(self._lives.values()):
            if life.phase is RequestPhase.RUNNING and life.engine_lost(now, blame) is RequestPhase.FAILED:
                self._forget(life.id)
                refused.append(Refuse(life.id, "engine_crashed", CRASHED))
        return refused

    def handed_back(self, request_id: str, now: float) -> bool:
        """An engine that ends will not finish this one, and gets nothing more. False for what is unknown."""
        life = self.life(request_id)
        if life is None or life.phase is not RequestPhase.RUNNING:
            return False
        life.hand_back(now)
        self._engine_goes(now)
        return True

    def token(self, request_id: str, index: int, token: int) -> tuple[bool, list[Action]]:
        """Whether the client is to get this token, and what follows. Raises TokenGap."""
        life = self.life(request_id)
        if life is None or life.phase is not RequestPhase.RUNNING:
            return False, []
        was_alone = life.alone
        fresh = life.token(index, token)
        return fresh, self._fill() if was_alone and not life.alone else []

    def worked(self, request_id: str, work: float) -> None:
        """As `RequestLife.worked`; nothing for what does not run."""
        if self.is_running(request_id):
            self._lives[request_id][0].worked(work)

    def finished(self, request_id: str) -> list[Action]:
        """The engine is done with it, well or badly: its place is free."""
        life = self.life(request_id)
        if life is None or life.phase is not RequestPhase.RUNNING:
            return []
        life.finish()
        self._forget(request_id)
        return self._fill()

    def cancel(self, request_id: str) -> list[Action]:
        """Its client has left; at any time."""
        life = self.life(request_id)
        if life is None:
            return []
        ran = life.phase is RequestPhase.RUNNING
        life.cancel()
        self._forget(request_id)
        return [*([Withdraw(request_id)] if ran else []), *self._fill()]

    def tick(self, now: float) -> list[Action]:
        """Refuses those that have waited for an engine too long."""
        if self._engine_here:
            return []
        late = [
            life.id
            for life, _ in self._lives.values()
            if life.phase in WAITING
            and now - max(life.waiting_since, self._away_since) >= self._limits.max_wait_s
        ]
        wait_s = self._limits.max_wait_s
        return self._refuse(late, f"the engine has not come back within {wait_s:g} s")

    def give_up(self, message: str) -> list[Action]:
        """No engine will come: refuses all that wait."""
        return self._refuse([life.id for life, _ in self._lives.values() if life.phase in WAITING], message)

    # --- inside ---

    def _engine_goes(self, now: float) -> None:
        self._models_here.clear()
        if self._engine_here:
            self._engine_here, self._away_since = False, now

    def _fill(self) -> list[Action]:
        """Starts what may start: what was parked first, then the queue; a suspect only by itself."""
        lives = [life for life, _ in self._lives.values()]
        if not self._engine_here:
            return [self._start(life) for life in lives if self._may_go_ahead(life)]
        running = [life for life in lives if life.phase is RequestPhase.RUNNING]
        if any(life.alone for life in running):
            return []
        parked = [life for life in lives if life.phase is RequestPhase.PARKED]
        suspects = [life for life in parked if life.alone]
        started = [self._start(life) for life in parked if not life.alone]
        if suspects:  # the queue stands until they have had their turn
            return started if started or running else [self._start(suspects[0])]
        return [*started, *self._take_from_queues()]

    def _may_go_ahead(self, life: RequestLife) -> bool:
        """Whether it goes on before the engine is ready. A suspect does not: it would spoil the start."""
        return life.phase is RequestPhase.PARKED and not life.alone and life.model in self._models_here

    def _take_from_queues(self) -> list[Action]:
        started: list[Action] = []
        for admission in self._lanes.values():
            while (request_id := admission.take()) is not None:
                started.append(self._start(self._lives[request_id][0]))
        return started

    def _start(self, life: RequestLife) -> Action:
        life.start()
        return Start(life.id)

    def _refuse(self, request_ids: list[str], message: str) -> list[Action]:
        for request_id in request_ids:
            self._lives[request_id][0].fail()
            self._forget(request_id)
        return [Refuse(request_id, "engine_unavailable", message) for request_id in request_ids]

    def _forget(self, request_id: str) -> None:
        _, lane = self._lives.pop(request_id)
        self._lanes[lane].leave(request_id)


__all__ = ["Action", "Lane", "Limits", "QueueFull", "Refuse", "RequestTable", "Start", "TokenGap", "Withdraw"]
