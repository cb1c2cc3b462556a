"""A timer on a clock that is passed as an argument. Setting it replaces the time that was set before."""

from __future__ import annotations

from collections.abc import Callable

from vestal.supervision.clock import Clock
from vestal.supervision.named_tasks import NamedTasks

_TASK = "timer"


class Timer:
    """Calls `on_due` when the time that was set last has come. It runs as one of its owner's `tasks`."""

    def __init__(self, clock: Clock, tasks: NamedTasks, on_due: Callable[[], None]) -> None:
        self._clock, self._tasks, self._on_due = clock, tasks, on_due
        self._at: float | None = None

    def set(self, at: float | None) -> None:
        """Set the timer to the monotonic time `at`, or stop it if `at` is None."""
        if at == self._at:
            return
        self._at = at
        self._tasks.cancel(_TASK)
        if at is not None:
            self._tasks.run(_TASK, self._wait(at))

    async def _wait(self, at: float) -> None:
        while (remaining_s := at - self._clock.now()) > 0:  # a sleep may end a little early
            await self._clock.sleep(remaining_s)
        self._at = None
        self._tasks.forget(_TASK)  # this task: `on_due` may set the next time
        self._on_due()
