"""Keeps logs bounded while their writers hold them open: copy the end aside, cut the file in place.

All of ours are opened for append, so a writer goes on at the new end.
"""

import contextlib
import shutil
from pathlib import Path

MAX_BYTES = 10 * 1024 * 1024


def rotate(folder: Path, max_bytes: int = MAX_BYTES) -> list[Path]:
    """Cut every `*.log` over `max_bytes`; its text stays in `*.log.1`. Returns those that were cut."""
    cut = []
    for path in sorted(folder.glob("*.log")):
        with contextlib.suppress(OSError):
            if path.stat().st_size > max_bytes:
                shutil.copyfile(path, path.with_name(path.name + ".1"))
                with path.open("r+b") as file:
                    file.truncate(0)
                cut.append(path)
    return cut
