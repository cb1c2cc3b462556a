"""The life of one request: queued → running → done, and running → parked → running when the engine goes.

    QUEUED ──► RUNNING ──► DONE | FAILED
                │   ▲
                ▼   │          CANCELLED from any state that is not an end
               PARKED ──► FAILED (it killed the engine too often, or waited too long)

The token ids that the client has been given are kept, so that a new engine can go on with the next one. A
request in flight when an engine dies gets a strike. With two strikes it runs alone; if it ends an engine
again it fails. Strikes are forgiven once it got well past the place of the last crash: what kills engines
does so at one place, and a bystander of many crashes must not be taken for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

ALONE_AFTER_STRIKES = 2
FORGIVEN_AFTER_TOKENS = 4
"""Enough to be past the place of a crash. With 16, where 16 tokens took 6 s, two bystanders of ten random
kills in 100 requests were taken for the cause; fewer spare some, not those still in prefill."""


class Phase(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PARKED = "parked"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDS = frozenset({Phase.DONE, Phase.FAILED, Phase.CANCELLED})
WAITING = frozenset({Phase.QUEUED, Phase.PARKED})


class IllegalStep(Exception):
    """An event that cannot happen in this phase: a bug in the caller."""


class TokenGap(Exception):
    """The engine left out a token; the text cannot be made whole."""


@dataclass
class RequestLife:
    """One request. `waiting_since` is monotonic time; `emitted` are the ids given to the client, in order."""

    id: str
    waiting_since: float
    phase: Phase = Phase.QUEUED
    emitted: list[int] = field(default_factory=list)
    strikes: int = 0
    crashes: int = 0
    _emitted_at_crash: int = 0

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
        self.phase = Phase.RUNNING

    def token(self, index: int, token: int) -> bool:
        """Takes one token; False where the client has it already. Raises TokenGap."""
        self._need(Phase.RUNNING)
        if index < len(self.emitted):
            return False
        if index > len(self.emitted):
            raise TokenGap(f"token {index} came where {len(self.emitted)} was due")
        self.emitted.append(token)
        if self.strikes and len(self.emitted) - self._emitted_at_crash >= FORGIVEN_AFTER_TOKENS:
            self.strikes = 0
        return True

    def engine_lost(self, now: float, blame: bool = True) -> Phase:
        """The engine it ran on is gone: PARKED, or FAILED at the third strike.

        Without `blame` (the engine was stopped on purpose) there is no strike.
        """
        self._need(Phase.RUNNING)
        self.strikes += 1 if blame else 0
        self.crashes += 1
        self._emitted_at_crash = len(self.emitted)
        self.waiting_since = now
        self.phase = Phase.FAILED if self.strikes > ALONE_AFTER_STRIKES else Phase.PARKED
        return self.phase

    def hand_back(self, now: float) -> None:
        """The engine ends on purpose and will not finish it: it waits for the next."""
        self._need(Phase.RUNNING)
        self.waiting_since = now
        self.phase = Phase.PARKED

    def finish(self) -> None:
        """The engine has said that it is done."""
        self._need(Phase.RUNNING)
        self.phase = Phase.DONE

    def fail(self) -> None:
        self._need(*WAITING, Phase.RUNNING)
        self.phase = Phase.FAILED

    def cancel(self) -> None:
        self._need(*WAITING, Phase.RUNNING)
        self.phase = Phase.CANCELLED

    def _need(self, *phases: Phase) -> None:
        if self.phase not in phases:
            raise IllegalStep(f"request {self.id} is {self.phase}, not {' or '.join(phases)}")
