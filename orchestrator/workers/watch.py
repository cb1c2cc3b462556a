"""Decide which workers are dead, from what this process has observed. Pure: time is an argument.

Clocks of different machines are never compared. A worker is dead if its heartbeat did not change during
DEAD_AFTER_S seconds of continuous observation. After a gap in the observation (this machine slept, the
database was away) the observation starts again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

BEAT_S = 3.0
DEAD_AFTER_S = 12.0  # with the heartbeat's interval, a task is taken over within 20 s
MAX_GAP_S = 9.0  # between two observations


@dataclass(frozen=True)
class Heartbeat:
    """A worker's heartbeat counter. A restarted worker has another incarnation."""

    incarnation: str
    beats: int


# For a worker with tasks but no row in the table: it was removed, and took a task before it noticed that.
NO_HEARTBEAT = Heartbeat("", 0)


@dataclass(frozen=True)
class HeartbeatWatch:
    """What this process has observed of the workers' heartbeats.

    `looked_at` is the time of the last observation. `since` maps each worker to the heartbeat seen then, and
    to the time when that heartbeat was first seen. If more than MAX_GAP_S seconds pass between two
    observations, the earlier times are forgotten: each heartbeat counts as first seen at the later
    observation. Times are in seconds, by this process's clock.
    """

    since: Mapping[str, tuple[Heartbeat, float]] = field(default_factory=dict)
    looked_at: float = float("-inf")

    def after(self, seen: Mapping[str, Heartbeat], now: float) -> HeartbeatWatch:
        """Return the watch after an observation of all heartbeats (`seen`) at the time `now`."""
        known = self.since if now - self.looked_at <= MAX_GAP_S else {}
        unchanged = {
            name: known[name] for name, beat in seen.items() if name in known and known[name][0] == beat
        }
        return HeartbeatWatch({name: unchanged.get(name, (beat, now)) for name, beat in seen.items()}, now)

    @property
    def dead(self) -> list[str]:
        """Return the workers whose heartbeat has not changed for DEAD_AFTER_S seconds."""
        return [name for name, (_, since) in self.since.items() if self.looked_at - since >= DEAD_AFTER_S]
