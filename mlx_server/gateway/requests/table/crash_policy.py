"""Decide whether a request continues when its engine dies, from what the death says about the request. Pure.

**A death of the engine's own making** (a fatal signal such as SIGABRT or SIGSEGV, an exit code, a kill by the
gateway because the engine hung, or a kill for lack of memory) is a strike against each request that ran on
the engine, because any of them may have caused the death:

- with fewer than two strikes, a request continues in the next engine, together with the others;
- with two strikes, it continues alone, so that the next death shows whether it is the cause;
- if the engine dies again while the request runs alone, and before the request got any further, it fails.

**A kill by an unknown sender** (SIGKILL, SIGTERM) is weak evidence, because the sender most likely knew
nothing about the request. Successive kills are counted as long as each of them meets the request at exactly
the same place: the client has the same number of tokens, the same part of the model is loaded, and the same
part of the prompt is processed. A kill at another place counts as the first of a new series. When the request
gets a new token, the count returns to 0 at once, without waiting for another kill. The count has two limits:

- after KILLS_TO_RUN_ALONE such kills, the request runs alone, after the others;
- after KILLS_TO_FAIL such kills that met it while it ran alone, it fails.

A request that makes an engine die does so at one place. A request that was only present gets further between
the deaths. docs/decisions/0020-deaths-weigh-what-they-show.md says how probable it is that such a request
fails.
"""

from __future__ import annotations

from enum import StrEnum

STRIKES_TO_RUN_ALONE = 2
TOKENS_TO_CANCEL_STRIKES = 16
KILLS_TO_RUN_ALONE = 5
KILLS_TO_FAIL = 16

Progress = tuple[int, float]
"""How far a request has got, as a pair: how many tokens its client has, and the work done towards the next
token (any number that grows while the model loads and the prompt is processed). A greater pair is further."""

NO_PROGRESS: Progress = (0, -1.0)


class EngineDeath(StrEnum):
    """Kinds of an engine's death, by what they say about the requests that ran on the engine.

    PLANNED says nothing, because the engine was asked to exit. OWN_FAULT means that the engine crashed, hung,
    or took too much memory. UNKNOWN_KILL means that somebody sent the engine SIGKILL or SIGTERM.
    """

    PLANNED = "planned"
    OWN_FAULT = "own_fault"
    UNKNOWN_KILL = "unknown_kill"


class CrashHistory:
    """Records the deaths of engines while they ran one request, and decides whether the request may continue.

    `strikes` counts, up to two, the engines that died by their own fault, such as a crash. `kills_in_a_row`
    counts successive kills of engines by an unknown sender that met the request at exactly the same place:
    the client had the same number of tokens, the same part of the model was loaded, and the same part of the
    prompt was processed. `kills_alone` counts how many of these kills came while the engine ran no other
    request.
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
        """Return whether the request has two strikes: it ran on two engines that died by their own fault, and
        has made too little progress since to cancel the strikes. It fails at the next strike without
        progress.
        """
        return self.strikes >= STRIKES_TO_RUN_ALONE

    def engine_died(self, death: EngineDeath, progress: Progress, alone: bool) -> bool:
        """Record that an engine died while it ran the request, which had got as far as `progress`. Return
        True if the request may continue, False if it must fail. `alone` says whether no other request ran on
        the engine.
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

        This resets the counts of kills by an unknown sender. It also cancels the strikes (deaths of engines
        by their own fault while they ran the request) if the client has at least TOKENS_TO_CANCEL_STRIKES
        tokens more than at the furthest point at which an engine has crashed.
        """
        if self.kills_in_a_row:
            self.forget_kills()
        if self.strikes and tokens - self._furthest_crash[0] >= TOKENS_TO_CANCEL_STRIKES:
            self.strikes = 0
