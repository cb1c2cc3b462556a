"""Keep log files small while their writers hold them open: copy the text away, then truncate in place.

Every log of Vestal is opened for appending, so its writer continues at the new end of the file.
"""

import contextlib
import os
import shutil
from pathlib import Path

MAX_BYTES = 10 * 1024 * 1024


def rotate(folder: Path, max_bytes: int = MAX_BYTES) -> list[Path]:
    """Copy each `*.log` that exceeds `max_bytes` to `*.log.1` and truncate it. Return the truncated files.

    The earlier copy is deleted first, which on a full disk makes the room for the new one. A log that cannot
    be copied is truncated all the same once it has twice that size.
    """
    truncated = []
    for path in sorted(folder.glob("*.log")):
        with contextlib.suppress(OSError):
            size = path.stat().st_size
            if size > max_bytes and (_copy(path) or size > 2 * max_bytes):
                os.truncate(path, 0)
                truncated.append(path)
    return truncated


def _copy(path: Path) -> bool:
    """Copy the log to a file with `.1` after its name, such as `agent.log.1`. Return True if that succeeds.

    If it fails, for example because the disk is full, delete the incomplete copy and return False.
    """
    copy = path.with_name(path.name + ".1")
    try:
        copy.unlink(missing_ok=True)
        shutil.copyfile(path, copy)
    except OSError:
        with contextlib.suppress(OSError):
            copy.unlink(missing_ok=True)
        return False
    return True
