"""Parse durations and sizes as people write them: `5m`, `1h30m`, `2g`, `512m`; and format sizes for
people.
"""

import re

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NOT_A_DURATION = 'not a duration such as "5m", "90s" or -1 (forever)'
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_MAX_BYTES = 2**63 - 1  # what a system call takes
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def duration_s(value: str | float) -> float:
    """Return a duration as Ollama writes it (`5m`, `90s`, `1h30m`, or a number of seconds) in seconds.

    A negative duration means forever and returns `inf`. Raises ValueError if `value` is not a duration.
    """
    text = str(value).strip().lower()
    try:
        number = float(text)
    except ValueError:
        number = _with_units_s(text)
    if number != number:  # Python takes `nan` for a number
        raise ValueError(_NOT_A_DURATION)
    return float("inf") if number < 0 else number


def _with_units_s(text: str) -> float:
    sign, body = (-1.0, text[1:]) if text.startswith("-") else (1.0, text)
    parts = _DURATION.findall(body)
    if not parts or "".join(amount + unit for amount, unit in parts) != body:
        raise ValueError(_NOT_A_DURATION)
    return sign * sum(float(amount) * _SECONDS[unit] for amount, unit in parts)


def size_bytes(value: str | int) -> int:
    """Return a size as Docker writes it (`2g`, `512m`, `1.5GiB`, or a number of bytes) in bytes.

    Units are powers of 1024. Raises ValueError if `value` is not a size, or more than 2**63 - 1 bytes.
    """
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise ValueError('not a size such as "2g" or "512m"')
    size = float(match[1]) * 1024 ** _POWER[match[2].lower()]
    if size >= _MAX_BYTES:
        raise ValueError('more than any machine has: give a size such as "2g" or "512m"')
    return int(size)


def format_size(count: float) -> str:
    """Return a number of bytes as text for people: `512 B`, `93.4 MiB`, `1.2 GiB`, `128 GiB`.

    Units are powers of 1024 (KiB, MiB, …), as the operating system and Docker count memory. The status page
    formats sizes by the same rule (`assets/format.js`).
    """
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    size, unit = float(count), 0
    while abs(size) >= 1000 and unit < len(units) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} {units[unit]}" if unit == 0 or abs(size) >= 100 else f"{size:.1f} {units[unit]}"
