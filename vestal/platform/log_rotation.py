"""Keep log files small while their writers hold them open: copy the text away, then truncate in place.

Every log of Vestal is opened for appending, so its writer continues at the new end of the file.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

MAX_BYTES = 10 * 1024 * 1024
INTERVAL_S = 600.0
VARIABLE = "VESTAL_ROTATES_LOGS"
"""The environment variable that, if it is not empty, asks a gateway to rotate the logs of its home. Other
gateways leave that to the agent that supervises them.
"""


def rotate(folder: Path, max_bytes: int = MAX_BYTES) -> list[Path]:
    """Copy each `*.log` in `folder` that exceeds `max_bytes` to `*.log.1` and truncate it. Return the
    truncated files.

    The earlier copy is deleted first, which on a full disk makes the room for the new one. A log that cannot
    be copied is nevertheless truncated once it exceeds twice `max_bytes`.
    """
    truncated = []
    for path in sorted(folder.glob("*.log")):
        with contextlib.suppress(OSError):
            size = path.stat().st_size
            if size > max_bytes and (_copy(path) or size > 2 * max_bytes):
                os.truncate(path, 0)
                truncated.append(path)
    return truncated


async def rotate_regularly(folder: Path, sleep: Callable[[float], Awaitable[None]]) -> None:
    """Rotate the logs in `folder` now and every INTERVAL_S seconds, until cancelled. `sleep` waits for some
    seconds, as `asyncio.sleep` does. If a rotation fails, for example because no descriptor is free, the next
    one is made after the usual interval.
    """
    while True:
        with contextlib.suppress(OSError, RuntimeError):
            await asyncio.to_thread(rotate, folder)
        await sleep(INTERVAL_S)


def _copy(path: Path) -> bool:
    """Copy the log to a file with `.1` after its name, such as `agent.log.1`, which only the owner may
    read. Return True if that succeeds.

    If it fails, for example because the disk is full, delete the incomplete copy and return False.
    """
    copy = path.with_name(path.name + ".1")
    try:
        copy.unlink(missing_ok=True)
        os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        shutil.copyfile(path, copy)
    except OSError:
        with contextlib.suppress(OSError):
            copy.unlink(missing_ok=True)
        return False
    return True
