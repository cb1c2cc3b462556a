"""Send this worker's heartbeat, and take over the tasks of workers whose heartbeat has stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from orchestrator.errors import DatabaseFailed
from orchestrator.events import emit
from orchestrator.workers.membership import Membership
from orchestrator.workers.watch import BEAT_S, NO_HEARTBEAT, Heartbeat, HeartbeatWatch


class Tasks(Protocol):
    """What the reaper needs from the stored tasks. All methods block, and raise DatabaseFailed if the
    database fails. `here` has the ids of the tasks that run in this process.
    """

    here: set[str]

    def at_work(self) -> dict[str, list[str]]:
        """Return the ids of the running tasks by worker."""
        ...

    def queue_again(self, worker: str, tasks: list[str]) -> None:
        """Queue those of the tasks again that are still recorded as running on `worker`. They continue at
        their first unfinished step, on any free worker.
        """
        ...

    def give_up(self, task: str) -> None:
        """Cancel the task, because too many workers died while running it."""
        ...


class DeclaredDead(Exception):
    """Other workers have taken over this worker's tasks, so this process must end and be restarted."""


class Reaper:
    """Sends the heartbeat of one worker, and takes over the tasks of workers that are dead."""

    def __init__(
        self, membership: Membership, tasks: Tasks, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._membership = membership
        self._tasks = tasks
        self._clock = clock
        self._watch = HeartbeatWatch()
        self._stray_watch = HeartbeatWatch()
        self._last_failure = ""

    async def run(self) -> None:
        """Call `round` every few seconds until cancelled. If the database fails, log that, and try again.
        Raises DeclaredDead if other workers declared this one dead.
        """
        while True:
            try:
                await asyncio.to_thread(self.round)
                self._last_failure = ""
            except DatabaseFailed as error:
                # The database failed for all workers, so none is dead. HeartbeatWatch starts again after it.
                if error.message != self._last_failure:
                    emit("workers_not_seen", error.message)
                self._last_failure = error.message
            await asyncio.sleep(BEAT_S)

    def round(self) -> None:
        """Send one heartbeat, and take over the tasks of dead workers. Raises DeclaredDead if this worker was
        declared dead, and DatabaseFailed if the database fails.
        """
        if not self._membership.beat():
            raise DeclaredDead
        at_work = self._tasks.at_work()
        seen = {**dict.fromkeys(at_work, NO_HEARTBEAT), **self._membership.beats()}
        self._watch = self._watch.after(seen, self._clock())
        for worker in self._watch.dead:
            self._take_over(worker, seen[worker])
        self._requeue_strays(set(at_work.get(self._membership.worker, [])))

    def _requeue_strays(self, mine: set[str]) -> None:
        """Queue the tasks again that are recorded as running here but are not running. Such tasks exist if a
        reply of the database was lost. `mine` has the ids of all tasks that are recorded as running here.
        """
        strays = dict.fromkeys(mine - self._tasks.here, NO_HEARTBEAT)
        self._stray_watch = self._stray_watch.after(
            strays, self._clock()
        )  # only after a while, since a task may be starting or ending
        if lost := sorted(self._stray_watch.dead):
            self._tasks.queue_again(self._membership.worker, lost)
            emit("tasks_queued_again", "they are recorded as running here, but do not run", tasks=lost)

    def _take_over(self, worker: str, last: Heartbeat) -> None:
        with self._membership.removing(worker, last) as is_ours:
            if not is_ours:
                return
            left = self._tasks.at_work().get(worker, [])  # read again: now nobody else changes them
            given_up = [task for task in left if not self._membership.lost_worker(task)]
            for task in given_up:
                self._tasks.give_up(task)
            self._tasks.queue_again(worker, [task for task in left if task not in given_up])
        emit("worker_lost", "its heartbeat stopped; its tasks continue elsewhere", worker=worker, tasks=left)
