"""Reads macOS's `memory_pressure -Q`: how much of the memory the system calls free. Pure."""

import re

COMMAND = ("/usr/bin/memory_pressure", "-Q")
_FREE = re.compile(r"^System-wide memory free percentage:\s*(\d+)%", re.MULTILINE)


def parse(text: str) -> float | None:
    """The fraction that can still be given out, caches counted as free; None where it is not told."""
    found = _FREE.search(text)
    return int(found[1]) / 100 if found else None
