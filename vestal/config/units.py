"""Durations and sizes as people write them: `5m`, `1h30m`, `2g`, `512m`."""

import re

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NO_DURATION = 'not a duration such as "5m", "90s" or -1 (for ever)'
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def seconds(value: str | float) -> float:
    """Ollama's durations: `5m`, `90s`, `1h30m`, or a number of seconds. Negative means for ever: `inf`."""
    text = str(value).strip().lower()
    try:
        number = float(text)
    except ValueError:
        number = _seconds_in_words(text)
    if number != number:  # `nan` is a number to Python, and no duration
        raise ValueError(_NO_DURATION)
    return float("inf") if number < 0 else number


def _seconds_in_words(text: str) -> float:
    sign, body = (-1.0, text[1:]) if text.startswith("-") else (1.0, text)
    parts = _DURATION.findall(body)
    if not parts or "".join(amount + unit for amount, unit in parts) != body:
        raise ValueError(_NO_DURATION)
    return sign * sum(float(amount) * _SECONDS[unit] for amount, unit in parts)


def size_bytes(value: str | int) -> int:
    """Docker's sizes: `2g`, `512m`, `1.5GiB`, or bytes; units are powers of 1024."""
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise ValueError('not a size such as "2g" or "512m"')
    return int(float(match[1]) * 1024 ** _POWER[match[2].lower()])
