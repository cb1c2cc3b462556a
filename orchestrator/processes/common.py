"""Set up what every process of the orchestrator needs: logging, signals, heartbeat."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from orchestrator.events import adopt_logger, set_component
from vestal.best_effort import output
from vestal.web.descriptors import raise_descriptor_limit

HEARTBEAT_EVERY_S = 15.0


def begin(component: str) -> None:
    """Set up crash dumps, the limit of open files, and the JSON log, whose lines name this process
    `component`. A log line that cannot be written is dropped and raises nothing.
    """
    output.protect(component)
    faulthandler.enable()
    raise_descriptor_limit()
    set_component(component)
    for name in ("aiohttp", "asyncio"):
        adopt_logger(name)


async def until_stopped(*loops: Coroutine[Any, Any, None]) -> BaseException | None:
    """Run the loops until SIGTERM or SIGINT, and return None. If a loop ends earlier, return its exception,
    or a RuntimeError if it had none.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    running = [asyncio.create_task(loop) for loop in loops]
    ended = asyncio.create_task(stop.wait())
    await asyncio.wait([*running, ended], return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        return None
    failed = next(task for task in running if task.done())
    return failed.exception() or RuntimeError("a loop that must not end has ended")


async def heartbeat(path: Path) -> None:
    """Touch the file that `healthcheck` examines, every 15 seconds until cancelled. If the disk cannot be
    written, try again next time.
    """
    while True:
        with contextlib.suppress(OSError):
            await asyncio.to_thread(path.touch)
        await asyncio.sleep(HEARTBEAT_EVERY_S)
