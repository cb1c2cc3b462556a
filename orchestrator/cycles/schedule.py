"""When nightly's run is due. Pure: the local times come as arguments."""

from __future__ import annotations

from datetime import datetime, timedelta


def last_slot(now: datetime, hour: int) -> datetime:
    """The most recent moment at which the clock struck `hour`."""
    slot = now.replace(hour=hour, minute=0, second=0, microsecond=0)
    return slot if slot <= now else slot - timedelta(days=1)


def due(since: datetime, now: datetime, hour: int) -> bool:
    """Whether a run fell due since the last one ended (or the first start): a missed one still is."""
    return since < last_slot(now, hour)


def next_slot(now: datetime, hour: int) -> datetime:
    """The next moment at which the clock will strike `hour`."""
    return last_slot(now, hour) + timedelta(days=1)
