"""Keep log files bounded while their writers hold them open: copy the text away, then truncate in place.

Every log of Vestal is opened for appending, so its writer continues at the new end of the file.
"""

import contextlib
import shutil
from pathlib import Path

MAX_BYTES = 10 * 1024 * 1024


def rotate(folder: Path, max_bytes: int = MAX_BYTES) -> list[Path]:
    """Copy each `*.log` that exceeds `max_bytes` to `*.log.1` and truncate it. Return the truncated files."""
    truncated = []
    for path in sorted(folder.glob("*.log")):
        with contextlib.suppress(OSError):
            if path.stat().st_size > max_bytes:
                shutil.copyfile(path, path.with_name(path.name + ".1"))
                with path.open("r+b") as file:
                    file.truncate(0)
                truncated.append(path)
    return truncated
