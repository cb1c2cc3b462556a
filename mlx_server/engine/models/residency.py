"""Which models leave memory, and when: keep-alive first, then least recently used. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Resident:
    """A loaded model. `busy` with requests; otherwise it expires at `expires_s` (inf: never)."""

    name: str
    busy: bool
    last_used_s: float
    expires_s: float


def expired(residents: Sequence[Resident], now: float) -> list[str]:
    """Idle models whose time is up."""
    return [r.name for r in residents if not r.busy and r.expires_s <= now]


def next_expiry_s(residents: Sequence[Resident]) -> float:
    """When `expired` is worth asking again; inf where nothing will expire by itself."""
    return min((r.expires_s for r in residents if not r.busy), default=math.inf)


def victims(residents: Sequence[Resident], limit: int) -> list[str] | None:
    """The idle models to unload so that one more fits under `limit`; None where all others are busy."""
    surplus = len(residents) + 1 - limit
    if surplus <= 0:
        return []
    idle = sorted((r for r in residents if not r.busy), key=lambda r: r.last_used_s)
    return [r.name for r in idle[:surplus]] if len(idle) >= surplus else None


def deadline(now: float, keep_alive_s: float | None, default_s: float) -> float:
    """When a model used at `now` expires. None takes the default; a negative time means never."""
    seconds = default_s if keep_alive_s is None else keep_alive_s
    return math.inf if seconds < 0 else now + seconds
