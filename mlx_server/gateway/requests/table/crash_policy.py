"""Decide whether a request goes on when its engine dies, by what the death says about the request. Pure.

**A death of the engine's own making** (a fatal signal such as SIGABRT or SIGSEGV, an exit code, a kill of
ours because it hung, a kill for memory) is a strike against each request that ran on the engine, for any of
them may have caused it:

- with fewer than two strikes a request goes on in the next engine, together with the others;
- with two strikes it goes on alone, so that the next death shows whether it is the cause;
- if the engine then dies again while it runs alone, and before it got any further, it fails.

**A kill by an unknown sender** (SIGKILL, SIGTERM) is weak evidence: whoever sent it most likely knew nothing
of the request. Only kills in a row count that met the request at exactly the same place (the same number of
tokens, the same part of its prompt or model); a kill at another place starts the count anew, a new token ends
it:

- after KILLS_TO_RUN_ALONE of them the request runs alone, while the others go first;
- it fails after KILLS_TO_FAIL of them that it met alone.

A request that makes an engine die does so at one place. A request that was only present gets further between
the deaths. How probable it is that such a request fails: docs/decisions/0020-deaths-weigh-what-they-show.md.
"""

from __future__ import annotations

from enum import StrEnum

STRIKES_TO_RUN_ALONE = 2
TOKENS_TO_CANCEL_STRIKES = 16
KILLS_TO_RUN_ALONE = 5
KILLS_TO_FAIL = 16

Progress = tuple[int, float]
"""How far a request has got: the tokens given to its client, then the work done towards the next token (any
number that grows as its model loads and its prompt is processed). A greater value is further."""

NO_PROGRESS: Progress = (0, -1.0)


class EngineDeath(StrEnum):
    """What the death of an engine says about the requests that ran on it.

    PLANNED says nothing: the engine was asked to exit. OWN_FAULT: the engine crashed, hung, or took too much
    memory. UNKNOWN_KILL: somebody sent it SIGKILL or SIGTERM.
    """

    PLANNED = "planned"
    OWN_FAULT = "own_fault"
    UNKNOWN_KILL = "unknown_kill"


class CrashHistory:
    """The deaths of engines that one request has gone through.

    `kills_in_a_row` counts the kills by an unknown sender that met the request at the same place, one after
    the other, and `kills_alone` those among them that it met alone.
    """

    def __init__(self) -> None:
        self.strikes = 0
        self.kills_in_a_row = 0
        self.kills_alone = 0
        self._furthest_crash = NO_PROGRESS
        self._place_of_kills = NO_PROGRESS

    @property
    def must_run_alone(self) -> bool:
        """Return whether no other request may run on the engine at the same time."""
        return self.has_two_strikes or self.kills_in_a_row >= KILLS_TO_RUN_ALONE

    @property
    def has_two_strikes(self) -> bool:
        """Return whether one more strike without progress fails the request."""
        return self.strikes >= STRIKES_TO_RUN_ALONE

    def engine_died(self, death: EngineDeath, progress: Progress, alone: bool) -> bool:
        """Record a death at `progress`; return True if the request may continue, False if it must fail.

        `alone`: no other request ran on the engine.
        """
        if death is EngineDeath.OWN_FAULT:
            return self._engine_crashed(progress)
        return death is EngineDeath.PLANNED or self._engine_killed(progress, alone)

    def _engine_crashed(self, progress: Progress) -> bool:
        may_go_on = not self.has_two_strikes or progress > self._furthest_crash
        self.strikes = min(self.strikes + 1, STRIKES_TO_RUN_ALONE)
        self._furthest_crash = max(progress, self._furthest_crash)
        return may_go_on

    def _engine_killed(self, progress: Progress, alone: bool) -> bool:
        if progress != self._place_of_kills:
            self.forget_kills()
        self._place_of_kills = progress
        self.kills_in_a_row += 1
        self.kills_alone += alone
        return self.kills_alone < KILLS_TO_FAIL

    def forget_kills(self) -> None:
        """Reset the counts of kills by an unknown sender."""
        self.kills_in_a_row = self.kills_alone = 0
        self._place_of_kills = NO_PROGRESS

    def progressed(self, tokens: int) -> None:
        """Record that the request got a new token; its client has `tokens` tokens now.

        This ends the count of kills, and cancels the strikes if the request is well past its last crash.
        """
        if self.kills_in_a_row:
            self.forget_kills()
        if self.strikes and tokens - self._furthest_crash[0] >= TOKENS_TO_CANCEL_STRIKES:
            self.strikes = 0
