"""Decide when the nightly run is due. Pure: local times are arguments."""

from __future__ import annotations

from datetime import datetime, timedelta


def last_slot(now: datetime, hour: int) -> datetime:
    """Return the most recent time, up to `now`, at which it was `hour` o'clock."""
    slot = now.replace(hour=hour, minute=0, second=0, microsecond=0)
    return slot if slot <= now else slot - timedelta(days=1)


def due(since: datetime, now: datetime, hour: int) -> bool:
    """Return True if the nightly run, which starts each day at `hour` o'clock, should have started between
    `since` and `now`. `since` is the end of the last run, or the first start of the nightly service if there
    was no run.

    If `since` is more than a day after `now`, the clock was wrong when `since` was stored, and the run is
    due. If `since` is only an hour after `now`, the clock may have been right, because it is set back by an
    hour at the end of summer time.
    """
    return since < last_slot(now, hour) or since > now + timedelta(days=1)


def next_slot(now: datetime, hour: int) -> datetime:
    """Return the next time at which it will be `hour` o'clock."""
    return last_slot(now, hour) + timedelta(days=1)
