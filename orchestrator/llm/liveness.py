"""Decide when a backend that was asked for an answer counts as hung. Pure: time is an argument.

Silence alone proves little: before the first token, the backend may be loading a large model, processing a
long prompt or serving other requests first, or Vestal's gateway may hold the request for 120 s while its
engine restarts (which can also happen in the middle of an answer). Therefore silence counts as a hang only
after minutes, and a backend that answers no liveness request at all counts as hung much sooner.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class SilenceLimits:
    """The limits of a backend's silence during a call: how many seconds it may send nothing before its first
    data (`first_s`), and between later data (`next_s`).

    During silence, it gets a liveness request every `check_s` seconds. If it leaves `misses` of them in a row
    unanswered, it counts as hung before these limits.
    """

    first_s: float = 300.0
    next_s: float = 180.0
    check_s: float = 10.0
    misses: int = 3


@dataclass(frozen=True)
class CallSilence:
    """The silence of the backend in one call: when it began (`since`, in monotonic seconds), whether anything
    was received before it (`begun`), and how many liveness requests in a row were not answered (`missed`).
    `limits` says after how many seconds, or unanswered liveness requests, the backend counts as hung.
    """

    limits: SilenceLimits
    since: float
    begun: bool = False
    missed: int = 0

    def received(self, now: float) -> CallSilence:
        """Return the silence that begins at `now`, after something was received."""
        return CallSilence(self.limits, now, begun=True)

    def checked(self, answered: bool) -> CallSilence:
        """Return the silence after one more liveness request, which resets `missed` if the backend answered
        it, and increases it otherwise.
        """
        return replace(self, missed=0 if answered else self.missed + 1)

    def is_short(self, now: float) -> bool:
        """Return True if the present silence is shorter than `check_s` seconds, so that no liveness request
        is needed yet.
        """
        return now - self.since < self.limits.check_s

    def verdict(self, now: float) -> str:
        """Return why the backend counts as hung at `now`; "" if it does not."""
        silent_s = now - self.since
        if self.missed >= self.limits.misses:
            return f"it has stopped answering at all ({self.missed} times in a row, {silent_s:.0f} s)"
        if silent_s < (self.limits.next_s if self.begun else self.limits.first_s):
            return ""
        what = "in the middle of its answer" if self.begun else "before the first token"
        return f"nothing came for {silent_s:.0f} s {what}"
