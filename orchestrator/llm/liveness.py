"""When a host that was asked for an answer counts as hung: liveness is progress. Pure: time is an argument.

Nothing is heard before the first token: a large model may be loading, a long prompt be processed, other
requests be first, and Vestal's gateway hold the request for 120 s while its engine restarts; in mid-answer
that may come again. So silence alone is believed late, and a host that has stopped answering at all, soon.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Limits:
    """Seconds without a line, before the first and between two; in silence it is asked every `look_s`."""

    first_s: float = 300.0
    next_s: float = 180.0
    look_s: float = 10.0
    misses: int = 3


@dataclass(frozen=True)
class Silence:
    """`since` when nothing was heard, whether anything was before, and looks in a row without an answer."""

    limits: Limits
    since: float
    begun: bool = False
    missed: int = 0

    def heard(self, now: float) -> Silence:
        return Silence(self.limits, now, begun=True)

    def looked(self, answers: bool) -> Silence:
        return replace(self, missed=0 if answers else self.missed + 1)

    def is_short(self, now: float) -> bool:
        """Whether something was heard since the last look."""
        return now - self.since < self.limits.look_s

    def verdict(self, now: float) -> str:
        """Why it is given up, in words; "" while it is not."""
        silent_s = now - self.since
        if self.missed >= self.limits.misses:
            return f"it has stopped answering at all ({self.missed} times in a row, {silent_s:.0f} s)"
        if silent_s < (self.limits.next_s if self.begun else self.limits.first_s):
            return ""
        what = "in the middle of its answer" if self.begun else "before the first token"
        return f"nothing came for {silent_s:.0f} s {what}"
