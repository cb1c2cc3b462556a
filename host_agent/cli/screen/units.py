"""Format durations and numbers of bytes for people. Pure."""

from __future__ import annotations


def format_duration(seconds: float) -> str:
    """Return a duration in its largest whole unit: `3 d`, `2 h`, `5 min` or `12 s`; `0 s` below one
    second.
    """
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def format_bytes(count: float) -> str:
    """Return `512 B`, `93.0 MB` or `1.2 GB` (powers of 1000, as Ollama prints them)."""
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{int(count)} B"
