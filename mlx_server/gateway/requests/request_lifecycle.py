"""The life of one request: queued → running → done, and running → parked → running when the engine goes.

    QUEUED ──► RUNNING ──► DONE | FAILED
                │   ▲
                ▼   │          CANCELLED from any state that is not an end
               PARKED ──► FAILED (it killed the engine too often, or waited too long)

The token ids that the client has been given are kept, so that a new engine can go on with the next one. A
request in flight when an engine dies gets a strike. With two strikes it runs alone; if the engine dies again,
and the request has got no further than the last time, it fails. What kills engines does so at one place; a
bystander of many crashes gets on between them, by a token, a piece of its prompt, or a slice of its model,
and must not be taken for it. Strikes are forgiven well past the place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

ALONE_AFTER_STRIKES = 2
FORGIVEN_AFTER_TOKENS = 16


class RequestPhase(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PARKED = "parked"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDS = frozenset({RequestPhase.DONE, RequestPhase.FAILED, RequestPhase.CANCELLED})
WAITING = frozenset({RequestPhase.QUEUED, RequestPhase.PARKED})


class IllegalStep(Exception):
    """An event that cannot happen in this phase: a bug in the caller."""


class TokenGap(Exception):
    """The engine left out a token; the text cannot be made whole."""


Place = tuple[int, float]
"""How far a request has got: tokens emitted, and the work towards the next one. Places compare."""


@dataclass
class RequestLife:
    """One request. `waiting_since` is monotonic time; `emitted` are the ids given to the client, in order."""

    id: str
    waiting_since: float
    model: str = ""
    phase: RequestPhase = RequestPhase.QUEUED
    emitted: list[int] = field(default_factory=list)
    strikes: int = 0
    crashes: int = 0
    _work: float = 0.0
    _crash_place: Place = (0, -1.0)

    @property
    def alone(self) -> bool:
        """Whether nothing else may run beside it."""
        return self.strikes >= ALONE_AFTER_STRIKES

    @property
    def ended(self) -> bool:
        return self.phase in ENDS

    def start(self) -> None:
        """It goes to an engine, for the first time or again."""
        self._need(*WAITING)
        self.phase = RequestPhase.RUNNING
        self._work = 0.0

    def worked(self, work: float) -> None:
        """Its engine gets on towards the next token; `work` rises as its model loads and its prompt runs."""
        self._work = max(self._work, work)

    def token(self, index: int, token: int) -> bool:
        """Takes one token; False where the client has it already. Raises TokenGap."""
        self._need(RequestPhase.RUNNING)
        if index < len(self.emitted):
            return False
        if index > len(self.emitted):
            raise TokenGap(f"token {index} came where {len(self.emitted)} was due")
        self.emitted.append(token)
        self._work = 0.0
        if self.strikes and len(self.emitted) - self._crash_place[0] >= FORGIVEN_AFTER_TOKENS:
            self.strikes = 0
        return True

    def engine_lost(self, now: float, blame: bool = True) -> RequestPhase:
        """The engine it ran on is gone: PARKED, or FAILED at the third strike where it got no further.

        Without `blame` (the engine was stopped on purpose) there is no strike.
        """
        self._need(RequestPhase.RUNNING)
        self.crashes += 1
        self.waiting_since = now
        self.phase = RequestPhase.FAILED if blame and self._struck() else RequestPhase.PARKED
        return self.phase

    def _struck(self) -> bool:
        """One strike more; whether it was one too many."""
        place = (len(self.emitted), self._work)
        got_on = place > self._crash_place
        given_up = self.alone and not got_on
        self.strikes = min(self.strikes + 1, ALONE_AFTER_STRIKES)
        self._crash_place = max(place, self._crash_place)
        return given_up

    def hand_back(self, now: float) -> None:
        """The engine ends on purpose and will not finish it: it waits for the next."""
        self._need(RequestPhase.RUNNING)
        self.waiting_since = now
        self.phase = RequestPhase.PARKED

    def finish(self) -> None:
        """The engine has said that it is done."""
        self._need(RequestPhase.RUNNING)
        self.phase = RequestPhase.DONE

    def fail(self) -> None:
        self._need(*WAITING, RequestPhase.RUNNING)
        self.phase = RequestPhase.FAILED

    def cancel(self) -> None:
        self._need(*WAITING, RequestPhase.RUNNING)
        self.phase = RequestPhase.CANCELLED

    def _need(self, *phases: RequestPhase) -> None:
        if self.phase not in phases:
            raise IllegalStep(f"request {self.id} is {self.phase}, not {' or '.join(phases)}")
