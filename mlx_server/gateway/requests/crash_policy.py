"""Decides whether a request goes on when its engine dies. Pure.

Every request that ran on an engine that crashed gets a strike, for any of them may have caused the crash:

- with fewer than two strikes it goes on in the next engine, together with the others;
- with two strikes it goes on alone, so that the next crash shows whether it is the cause;
- where it then runs alone, and the engine dies again before the request got any further, it fails.

A request that makes an engine die does so at one point. A request that was only present at many crashes gets
further between them, by a token, a part of its prompt or a part of its model, and is never failed. The
strikes are cancelled once it is well past the point of the last crash.
"""

from __future__ import annotations

STRIKES_TO_RUN_ALONE = 2
TOKENS_TO_CANCEL_STRIKES = 16

Progress = tuple[int, float]
"""How far a request has got: the tokens given to its client, then the work done towards the next token (any
number that grows as its model loads and its prompt is processed). A greater value is further."""

NO_PROGRESS: Progress = (0, -1.0)


class CrashHistory:
    """The crashes that one request has gone through."""

    def __init__(self) -> None:
        self.strikes = 0
        self._furthest_crash = NO_PROGRESS

    @property
    def must_run_alone(self) -> bool:
        """Return whether no other request may run on the engine at the same time."""
        return self.strikes >= STRIKES_TO_RUN_ALONE

    def engine_crashed(self, progress: Progress) -> bool:
        """Note a crash at `progress`; return True where the request may go on, False where it must fail."""
        may_go_on = not self.must_run_alone or progress > self._furthest_crash
        self.strikes = min(self.strikes + 1, STRIKES_TO_RUN_ALONE)
        self._furthest_crash = max(progress, self._furthest_crash)
        return may_go_on

    def progressed(self, tokens: int) -> None:
        """Cancel the strikes where the request, with `tokens` given, is well past its last crash."""
        if self.strikes and tokens - self._furthest_crash[0] >= TOKENS_TO_CANCEL_STRIKES:
            self.strikes = 0
