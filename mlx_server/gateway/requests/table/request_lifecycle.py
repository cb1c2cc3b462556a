"""The states of one request, from its arrival in the gateway to its end. Pure.

    QUEUED ──► RUNNING ──► DONE | FAILED
                │   ▲
                ▼   │          CANCELLED from QUEUED, RUNNING and PARKED
               PARKED ──► FAILED (no engine came in time, or the crash policy blames the request for a death)

A request is PARKED while it has no engine although it ran before, because its engine died or was replaced and
the next one does not run yet. The gateway keeps the ids of the tokens that the client has received, so that
the next engine continues with the token after them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from mlx_server.gateway.requests.table.crash_policy import CrashHistory, EngineDeath, Progress


class RequestPhase(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PARKED = "parked"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


WAITING_PHASES = frozenset({RequestPhase.QUEUED, RequestPhase.PARKED})


class IllegalTransition(Exception):
    """An event was reported that cannot happen in the request's phase, which is a bug in the caller."""


class TokenGap(Exception):
    """The engine left out a token, so that the client's text cannot be complete."""


@dataclass
class RequestLifecycle:
    """One request's phase and history.

    `waiting_since` is the monotonic time at which the request began to wait for an engine. `emitted` are the
    ids of the tokens that the client has received, in order. `crashes` records the deaths of engines while
    they ran this request, from which `crash_policy` decides whether the request continues.

    `was_accepted` is True if the request is resumed after a gateway had accepted it before. That may have
    been an earlier gateway process, the gateway of another machine, or this gateway, which has cancelled the
    request in between because its client left.
    """

    id: str
    waiting_since: float
    model: str = ""
    phase: RequestPhase = RequestPhase.QUEUED
    emitted: list[int] = field(default_factory=list)
    was_accepted: bool = False
    crashes: CrashHistory = field(default_factory=CrashHistory)
    _was_parked: bool = False
    _work_done: float = 0.0  # work done for the next token, on the current engine
    _lost_at: Progress | None = None  # the progress when the engine was lost; read by `engine_died`

    @property
    def must_run_alone(self) -> bool:
        """Return whether no other request may run on the engine at the same time (see `crash_policy`)."""
        return self.crashes.must_run_alone

    @property
    def is_resumed(self) -> bool:
        """Return whether an engine was lost on which the request may have run, even if it gave no token."""
        return self._was_parked or self.was_accepted

    def start(self) -> None:
        """Record that the request was sent to an engine, for the first time or again."""
        self._require(*WAITING_PHASES)
        self.phase = RequestPhase.RUNNING
        self._work_done, self._lost_at = 0.0, None

    def worked(self, work_done: float) -> None:
        """Record progress towards the next token. `work_done` grows while the model loads and the prompt is
        processed.
        """
        self._work_done = max(self._work_done, work_done)

    def take_token(self, index: int, token: int) -> bool:
        """Record the token at `index`, and return True; return False if the client already has it. Raises
        TokenGap if tokens before it are missing.
        """
        self._require(RequestPhase.RUNNING)
        if index < len(self.emitted):
            return False
        if index > len(self.emitted):
            raise TokenGap(f"token {index} came where token {len(self.emitted)} was expected")
        self.emitted.append(token)
        self._work_done = 0.0
        self.crashes.progressed(len(self.emitted))
        return True

    def engine_lost(self, now: float) -> None:
        """Park the request, because its engine is gone, or shuts down and will not finish the request."""
        self._require(RequestPhase.RUNNING)
        self.waiting_since = now
        self._lost_at = (len(self.emitted), self._work_done)
        self.phase = RequestPhase.PARKED
        self._was_parked = True

    def engine_died(self, death: EngineDeath, alone: bool) -> bool:
        """Record why the engine on which the request ran has died. Return False if the request must fail, as
        `crash_policy` decides. `alone` says whether no other request ran on that engine.

        If the request ran on no engine, this does nothing and returns True.
        """
        lost_at, self._lost_at = self._lost_at, None
        return lost_at is None or self.crashes.engine_died(death, lost_at, alone)

    def finish(self) -> None:
        """Record that the engine has finished the request."""
        self._require(RequestPhase.RUNNING)
        self.phase = RequestPhase.DONE

    def fail(self) -> None:
        self._require(*WAITING_PHASES, RequestPhase.RUNNING)
        self.phase = RequestPhase.FAILED

    def cancel(self) -> None:
        self._require(*WAITING_PHASES, RequestPhase.RUNNING)
        self.phase = RequestPhase.CANCELLED

    def _require(self, *phases: RequestPhase) -> None:
        if self.phase not in phases:
            raise IllegalTransition(f"request {self.id} is {self.phase}, not {' or '.join(phases)}")
