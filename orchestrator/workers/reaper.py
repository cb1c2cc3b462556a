"""This worker's pulse, and what becomes of the tasks of those that have none any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from orchestrator.errors import DatabaseFailed
from orchestrator.events import emit
from orchestrator.workers.membership import Membership
from orchestrator.workers.watch import BEAT_S, NO_PULSE, Beat, Watch


class Tasks(Protocol):
    """The tasks' record; all of it blocks. `here`: the tasks that this process does work on."""

    here: set[str]

    def at_work(self) -> dict[str, list[str]]:
        """The tasks at work, by worker."""
        ...

    def queue_again(self, tasks: list[str]) -> None:
        """They go on at their first unfinished step, with whoever is free."""
        ...

    def give_up(self, task: str) -> None:
        """Cancel it."""
        ...


class DeclaredDead(Exception):
    """The others have taken this worker's tasks: it must end, and begin a new life."""


class Reaper:
    def __init__(
        self, membership: Membership, tasks: Tasks, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._membership = membership
        self._tasks = tasks
        self._clock = clock
        self._watch = Watch()
        self._astray = Watch()
        self._trouble = ""

    async def run(self) -> None:
        """Beat and look around until cancelled; raises DeclaredDead."""
        while True:
            try:
                await asyncio.to_thread(self.round)
                self._trouble = ""
            except DatabaseFailed as error:  # it is away for all; what was seen before it counts no longer
                if error.message != self._trouble:
                    emit("workers_not_seen", error.message)
                self._trouble = error.message
            await asyncio.sleep(BEAT_S)

    def round(self) -> None:
        if not self._membership.beat():
            raise DeclaredDead
        at_work = self._tasks.at_work()
        seen = {**dict.fromkeys(at_work, NO_PULSE), **self._membership.beats()}
        self._watch = self._watch.after(seen, self._clock())
        for worker in self._watch.dead:
            self._bury(worker, seen[worker])
        self._take_up_strays(set(at_work.get(self._membership.worker, [])))

    def _take_up_strays(self, mine: set[str]) -> None:
        """Queue again what is ours by the record and not by the facts: given out, and the answer was lost."""
        strays = dict.fromkeys(mine - self._tasks.here, NO_PULSE)
        self._astray = self._astray.after(
            strays, self._clock()
        )  # for a while: it may be on its way, or ending
        if lost := sorted(self._astray.dead):
            self._tasks.queue_again(lost)
            emit("tasks_found_astray", "they are queued again", tasks=lost)

    def _bury(self, worker: str, last: Beat) -> None:
        with self._membership.burying(worker, last) as ours:
            if not ours:
                return
            left = self._tasks.at_work().get(worker, [])  # as it is now that nobody else may touch them
            hopeless = [task for task in left if not self._membership.lost_worker(task)]
            for task in hopeless:
                self._tasks.give_up(task)
            self._tasks.queue_again([task for task in left if task not in hopeless])
        emit("worker_lost", "its pulse stopped; its tasks go on elsewhere", worker=worker, tasks=left)
