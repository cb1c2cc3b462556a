"""Decide which models are unloaded: first those whose keep-alive is over, then the least recently
used. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Resident:
    """A loaded model. Unless it is `busy` with requests, it expires at `expires_s`; infinity means never.

    Models with the same `weights` share them in memory. A model whose `weights` is "" shares none.
    """

    name: str
    busy: bool
    last_used_s: float
    expires_s: float
    weights: str = ""

    @property
    def group(self) -> tuple[str, str]:
        """Return a key that is equal for all models that share their weights."""
        return ("shared", self.weights) if self.weights else ("own", self.name)


def expired(residents: Sequence[Resident], now: float) -> list[str]:
    """Return the names of the idle models whose keep-alive is over at the time `now`."""
    return [r.name for r in residents if not r.busy and r.expires_s <= now]


def next_expiry_s(residents: Sequence[Resident]) -> float:
    """Return the time at which the next idle model expires; infinity if no idle model ever does."""
    return min((r.expires_s for r in residents if not r.busy), default=math.inf)


def victims(residents: Sequence[Resident], limit: int, weights: str = "") -> list[str] | None:
    """Return the names of the models to unload so that a new model can be loaded and at most `limit` models
    are then in memory. The list is empty if none must be unloaded. Return None if too many models are busy.

    `weights` is the id of the new model's weights, which it shares with each loaded model that has the same
    id; "" if it shares none. Models that share weights count as one, and are unloaded together. Only idle
    models are unloaded, the least recently used first.
    """
    groups: dict[tuple[str, str], list[Resident]] = {}
    for resident in residents:
        groups.setdefault(resident.group, []).append(resident)
    surplus = len(groups) + 1 - limit
    if surplus <= 0 or ("shared", weights) in groups:
        return []
    idle = [group for group in groups.values() if not any(r.busy for r in group)]
    idle.sort(key=lambda group: max(r.last_used_s for r in group))
    if len(idle) < surplus:
        return None
    return [r.name for group in idle[:surplus] for r in sorted(group, key=lambda r: r.last_used_s)]


def expiry_s(now: float, keep_alive_s: float | None, default_s: float) -> float:
    """Return the time at which a model that is used at `now` expires; infinity if the keep-alive is negative.

    If `keep_alive_s` is None, `default_s` is used.
    """
    seconds = default_s if keep_alive_s is None else keep_alive_s
    return math.inf if seconds < 0 else now + seconds
