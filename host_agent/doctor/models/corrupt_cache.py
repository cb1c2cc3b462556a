"""Files of the prompt cache are corrupt, or another block's.

The engine drops such a file when it meets it; this looks first. The check is that of
`vestal cache verify`, but for a few seconds only, and nothing is removed.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from host_agent.doctor.finding import Finding
from host_agent.doctor.models import cache_check
from vestal.config import Config

NAME = "corrupt_cache"
FOR_S = 8.0
NAMED = 3
REMEDY = "`vestal cache verify` drops them; those prompts then run cold"


def look(config: Config) -> Iterator[Finding]:
    """The newest files first: what was written when the machine went down is among them."""
    yield examine(config.home.cache, time.monotonic)


def examine(folder: Path, clock: Callable[[], float], for_s: float = FOR_S) -> Finding:
    """`clock` gives seconds; after `for_s` of them the rest is left for `vestal cache verify`."""
    if not cache_check.files(folder):
        return Finding(NAME, "ok", "the prompt cache has no files")
    paths = sorted(cache_check.files(folder), key=_written_at, reverse=True)
    until, checked, corrupt = clock() + for_s, 0, dict[str, str]()
    for path in paths:
        if clock() > until:
            break
        if why := _fault(path):
            corrupt[path.name] = why
        checked += 1
    rest = (
        f"; {len(paths) - checked} more were left for `vestal cache verify`" if checked < len(paths) else ""
    )
    if not corrupt:
        return Finding(NAME, "ok", f"{checked} files of the prompt cache are whole{rest}")
    named = "; ".join(f"{name}: {why}" for name, why in list(corrupt.items())[:NAMED])
    sentence = f"{len(corrupt)} of {checked} files of the prompt cache are corrupt{rest}"
    return Finding(NAME, "fault", sentence, REMEDY, named)


def _fault(path: Path) -> str:
    try:
        return cache_check.fault(path)
    except FileNotFoundError:
        return ""  # an engine is at work here
    except OSError as error:
        return error.strerror or str(error)


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
