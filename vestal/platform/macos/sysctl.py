"""Parse macOS's `sysctl NAME…`, which prints lines of `name: value`. Pure."""

import re
from collections.abc import Mapping

HARDWARE_COMMAND = ("/usr/sbin/sysctl", "hw.memsize", "hw.optional.arm64")
WAKE_TIME_COMMAND = ("/usr/sbin/sysctl", "kern.waketime")
_LINE = re.compile(r"^([a-z_0-9.]+): (.*)$", re.MULTILINE)
_TIMEVAL = re.compile(r"\{ sec = (\d+), usec = (\d+) \}")


def parse(text: str) -> dict[str, str]:
    """Return the values in `text`, the output of `sysctl NAME…`, by name. A name that this machine does not
    have is missing.
    """
    return dict(_LINE.findall(text))


def wake_time(values: Mapping[str, str]) -> float | None:
    """Return when the machine last woke, in seconds since 1970; None if it has not slept since boot. `values`
    has the output of `sysctl` by name. If `kern.waketime` is not among the names, return None too.
    """
    found = _TIMEVAL.match(values.get("kern.waketime", ""))
    return (int(found[1]) + int(found[2]) / 1e6) or None if found else None


def has_apple_silicon(values: Mapping[str, str]) -> bool:
    """Return whether the machine has Apple silicon. True under Rosetta too, which imitates an Intel Mac."""
    return values.get("hw.optional.arm64") == "1"
