"""Read what a container's processes do from `docker top`, which also works if containers run in a virtual
machine (Docker Desktop). Pure.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vestal.supervision import ProcessActivity

PS_ARGUMENTS = "-eo pid,stat,time"


def parse_top(top: Mapping[str, Any], main_pid: int) -> ProcessActivity:
    """Return the activity of a container: the CPU time of all its processes, and whether the main one is
    suspended, wants a CPU, or waits for the disk.

    `top` is the Docker engine's answer to a request for `ps` with PS_ARGUMENTS. A value that is missing or
    malformed is None in the result.
    """
    rows = [row for row in top.get("Processes") or () if isinstance(row, Sequence) and len(row) >= 3]
    seconds = [cpu_s for row in rows if (cpu_s := _seconds(str(row[2]))) is not None]
    state = next((str(row[1]) for row in rows if str(row[0]).strip() == str(main_pid)), "")
    return ProcessActivity(
        cpu_s=sum(seconds) if seconds else None,
        suspended=state[:1] in ("T", "t") if state else None,
        wants_cpu=state[:1] == "R" if state else None,
        waits_for_disk=state[:1] == "D" if state else None,
    )


def _seconds(text: str) -> float | None:
    """Return the seconds in a CPU time such as `1-02:03:04`, `02:03:04` or `3:04`; None if the text is
    malformed.
    """
    days, _, clock = text.strip().rpartition("-")
    try:
        parts = [float(part) for part in clock.split(":")]
        seconds = sum(part * 60**power for power, part in enumerate(reversed(parts)))
        return seconds + 86_400.0 * int(days or 0)
    except ValueError:
        return None
