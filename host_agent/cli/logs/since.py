"""Parse the argument of `--since`. Pure: the current time is an argument."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_UNITS_S = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_SPAN = re.compile(r"(\d+(?:\.\d+)?) ?([a-z]+)(?: ago)?")
_CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?")
EXAMPLES = "10m, 2h, 3d, 14:30, 2026-11-28, '2026-11-28 14:30'"


def parse_since(text: str, now: float) -> float:
    """Return the time, in seconds since 1970, that `text` means at the time `now`.

    `text` is a span such as `10m` or `2h`, a time of day (yesterday's if it is later than `now`), `today`,
    `yesterday`, or a date with or without a time. Times are local unless they have a UTC offset. Raises
    ValueError, whose message is a sentence, if `text` is none of these.
    """
    text = text.strip()
    if (span := _SPAN.fullmatch(text.lower())) and span[2] in _UNITS_S:
        return max(0.0, now - float(span[1]) * _UNITS_S[span[2]])
    try:
        if text.lower() in ("today", "yesterday"):
            return _midnight(now, days_ago=int(text.lower() == "yesterday"))
        if clock := _CLOCK.fullmatch(text):
            return _last_time_of_day(now, int(clock[1]), int(clock[2]), int(clock[3] or 0))
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time: give one such as {EXAMPLES}.") from None


def _midnight(now: float, days_ago: int) -> float:
    day = datetime.fromtimestamp(now).replace(hour=0, minute=0, second=0, microsecond=0)
    return (day - timedelta(days=days_ago)).timestamp()


def _last_time_of_day(now: float, hour: int, minute: int, second: int) -> float:
    at = datetime.fromtimestamp(now).replace(hour=hour, minute=minute, second=second, microsecond=0)
    return (at if at.timestamp() <= now else at - timedelta(days=1)).timestamp()
