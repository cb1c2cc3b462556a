"""Format durations and downloads for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vestal.config.units import format_size


def format_duration(seconds: float) -> str:
    """Return a duration in its largest whole unit: `3 d`, `2 h`, `5 min` or `12 s`; `0 s` below one
    second.
    """
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def format_download(update: Mapping[str, Any]) -> str:
    """Return the progress of a download, such as `412 MiB of 4.1 GiB, 45.0 MiB/s, 1 min left`.

    `update` is an object that the model store's program prints: `fraction`, `bytes` (the total), and while a
    download runs `bytes_per_s` and `remaining_s`. Return "" if `bytes` is 0, because the total is unknown.
    """
    if not (total := update["bytes"]):
        return ""
    shown = f"{format_size(update['fraction'] * total)} of {format_size(total)}"
    if update["fraction"] < 1.0 and (speed := update.get("bytes_per_s")):
        shown += f", {format_size(speed)}/s, {format_duration(update['remaining_s'])} left"
    return shown
