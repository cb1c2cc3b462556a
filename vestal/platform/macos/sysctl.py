"""Reads macOS's `sysctl NAME…`: lines of `name: value`. Pure."""

import re
from collections.abc import Mapping

HARDWARE = ("/usr/sbin/sysctl", "hw.memsize", "hw.optional.arm64")
WAKE = ("/usr/sbin/sysctl", "kern.waketime")
_LINE = re.compile(r"^([a-z_0-9.]+): (.*)$", re.MULTILINE)
_TIMEVAL = re.compile(r"\{ sec = (\d+), usec = (\d+) \}")


def parse(text: str) -> dict[str, str]:
    """Name to value. A name that this machine does not know is left out (sysctl says so on stderr)."""
    return dict(_LINE.findall(text))


def wake_time(values: Mapping[str, str]) -> float | None:
    """When the machine last woke, in seconds since 1970; None where it has not slept since boot."""
    found = _TIMEVAL.match(values.get("kern.waketime", ""))
    return (int(found[1]) + int(found[2]) / 1e6) or None if found else None


def has_apple_silicon(values: Mapping[str, str]) -> bool:
    """Also true for a process that Rosetta translates, to which the machine looks like an Intel one."""
    return values.get("hw.optional.arm64") == "1"
