"""Decide when a backend that was asked for an answer counts as hung. Pure: time is an argument.

CallSilence alone proves little: before the first token a large model may be loading, a long prompt may be in
progress, other requests may be first, or Vestal's gateway may hold the request for 120 s while its engine
restarts (which can also happen in the middle of an answer). Therefore silence counts as a hang only after
minutes, and a backend that answers no liveness request at all counts as hung much sooner.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class SilenceLimits:
    """How long a backend may send nothing: before the first line, and between two lines, in seconds.

    During silence it gets a liveness request every `check_s` seconds; `misses` unanswered ones in a row mean
    a hang.
    """

    first_s: float = 300.0
    next_s: float = 180.0
    check_s: float = 10.0
    misses: int = 3


@dataclass(frozen=True)
class CallSilence:
    """One call's silence: since when, whether anything was received before, unanswered liveness requests in a
    row.
    """

    limits: SilenceLimits
    since: float
    begun: bool = False
    missed: int = 0

    def received(self, now: float) -> CallSilence:
        """Return the silence that begins now, after something was received."""
        return CallSilence(self.limits, now, begun=True)

    def checked(self, answered: bool) -> CallSilence:
        """Count the result of a liveness request."""
        return replace(self, missed=0 if answered else self.missed + 1)

    def is_short(self, now: float) -> bool:
        """Return True if something was received since the last liveness request."""
        return now - self.since < self.limits.check_s

    def verdict(self, now: float) -> str:
        """Return why the backend counts as hung, or "" if it does not."""
        silent_s = now - self.since
        if self.missed >= self.limits.misses:
            return f"it has stopped answering at all ({self.missed} times in a row, {silent_s:.0f} s)"
        if silent_s < (self.limits.next_s if self.begun else self.limits.first_s):
            return ""
        what = "in the middle of its answer" if self.begun else "before the first token"
        return f"nothing came for {silent_s:.0f} s {what}"
