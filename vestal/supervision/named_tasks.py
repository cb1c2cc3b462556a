"""The asyncio tasks of one owner, one for each name, whose errors are logged."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any

_log = logging.getLogger(__name__)


class NamedTasks:
    """Runs asyncio tasks by name. A finished task is forgotten, and an error that ended it is logged.

    A new task may take the name of one that still runs; the older one then runs on without a name. `owner` is
    the name of the object that runs the tasks; the log shows each task as `owner:name`.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run the coroutine as a task of this name. An earlier one that has the name loses it and runs on."""
        task = asyncio.get_running_loop().create_task(work, name=f"{self._owner}:{name}")
        self._tasks[name] = task
        task.add_done_callback(self._finished)

    def cancel(self, name: str) -> None:
        """Cancel the task of this name, if there is one."""
        if (task := self.forget(name)) is not None:
            task.cancel()

    def forget(self, name: str) -> asyncio.Task[None] | None:
        """Remove the task of this name without cancelling it, and return it; None if there is none."""
        return self._tasks.pop(name, None)

    async def wait(self, name: str) -> None:
        """Wait until no task of this name runs."""
        while (task := self._tasks.get(name)) is not None:
            await asyncio.wait([task])

    async def cancel_all(self) -> None:
        """Cancel every task, and wait until all have ended."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _finished(self, task: asyncio.Task[None]) -> None:
        for name, known in list(self._tasks.items()):
            if known is task:
                del self._tasks[name]
        with contextlib.suppress(asyncio.CancelledError):
            if (error := task.exception()) is not None:
                _log.error("%s failed", task.get_name(), exc_info=error)
