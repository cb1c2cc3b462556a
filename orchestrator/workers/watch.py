"""Which workers are dead, judged by what this process saw with its own clock. Pure: time is an argument.

No two machines' clocks are compared, and no time stamp is trusted: a worker is dead whose beat has stood
still while we looked, all the time, for DEAD_AFTER_S. After a pause of our own (the machine slept, the
database was away) nobody has been looked at, and the watching begins anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

BEAT_S = 3.0
DEAD_AFTER_S = 12.0  # with a beat before and a look after it, a task is taken over within 20 s
MOST_GAP_S = 9.0  # between two looks


@dataclass(frozen=True)
class Beat:
    """The pulse of one life of a worker; one that was started again has another incarnation."""

    incarnation: str
    beats: int


# A worker that has tasks and no pulse at all: it was buried, and took one more before it noticed.
NO_PULSE = Beat("", 0)


@dataclass(frozen=True)
class Watch:
    """What was seen of each worker, since when it has looked like that, and when we looked last."""

    since: Mapping[str, tuple[Beat, float]] = field(default_factory=dict)
    looked_at: float = float("-inf")

    def after(self, seen: Mapping[str, Beat], now: float) -> Watch:
        known = self.since if now - self.looked_at <= MOST_GAP_S else {}
        unchanged = {
            name: known[name] for name, beat in seen.items() if name in known and known[name][0] == beat
        }
        return Watch({name: unchanged.get(name, (beat, now)) for name, beat in seen.items()}, now)

    @property
    def dead(self) -> list[str]:
        return [name for name, (_, since) in self.since.items() if self.looked_at - since >= DEAD_AFTER_S]
