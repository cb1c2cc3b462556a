"""Simulate durable tasks of many workers on one Postgres: calls to models, transactions, deaths and
take-overs.

The interval at which workers poll the queue, the number of active tasks, and the silence after which tasks
are taken over are the orchestrator's own constants. Postgres is one core that works on one transaction after
the other. A share of its time goes to transactions that workers make even without tasks, such as polls of the
queue. All other transactions become slower accordingly: if that share is 0.2, they take 1 / 0.8 times as
long.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.scale.events import EventLoop
from benchmarks.scale.parameters import WorkerParameters
from orchestrator.tasks.task_queue import POLL_S, max_active_tasks
from orchestrator.workers.watch import BEAT_S, DEAD_AFTER_S


@dataclass(eq=False)
class Task:
    """A simulated task. `calls_s` has the seconds of each of its calls of a model, and `done` says how many
    of these calls are recorded as done. `calls` counts all calls that were begun, so repeated ones count
    again; `finishes` counts how often the task was finished.

    `lost_at` is when the task's worker died; None unless the task waits for another worker. `pauses_s` has
    the seconds of each of these waits. Times are simulated seconds.
    """

    arrived_at: float
    calls_s: tuple[float, ...]
    done: int = 0
    finished_at: float | None = None
    finishes: int = 0
    calls: int = 0
    lost_at: float | None = None
    pauses_s: list[float] = field(default_factory=list)


@dataclass(eq=False)
class Worker:
    """A simulated worker. `active` is an ordered set of its unfinished tasks: the keys are the tasks, in the
    order in which the worker took them from the queue, and all values are None. `waiting` has those of these
    tasks whose next call of a model waits, because the worker already makes as many calls as it may.
    `calling` is how many calls it makes now, and `life` counts its deaths.
    """

    active: dict[Task, None] = field(default_factory=dict)
    waiting: deque[Task] = field(default_factory=deque)
    calling: int = 0
    life: int = 0
    is_alive: bool = True


class Workers:
    """Simulates `count` workers of tasks. Tasks arrive for `seconds` simulated seconds, at a rate that uses
    the share `share_of_calls` (0 to 1) of the calls that all workers can make at the same time. Each worker
    runs for `dies_every_s` seconds on average before it dies; with 0 none dies.

    When `run` returns, `tasks` has all tasks, each finished. Raises ValueError if the transactions of idle
    workers alone take all the time of Postgres.
    """

    def __init__(
        self,
        parameters: WorkerParameters,
        count: int,
        *,
        share_of_calls: float,
        seconds: float,
        dies_every_s: float = 0.0,
        seed: int = 1,
    ) -> None:
        self.loop = EventLoop()
        self.tasks: list[Task] = []
        self.postgres_busy_s = 0.0
        self._parameters, self._seconds = parameters, seconds
        self._draw = random.Random(f"workers {seed}")
        self._dies_every_s = dies_every_s
        self._queue: deque[Task] = deque()
        self._workers = [Worker() for _ in range(count)]
        per_task_s = parameters.call_s * parameters.calls_per_task
        self._rate = share_of_calls * count * parameters.calls_at_once / per_task_s
        self.rest_share = count * parameters.transactions_at_rest_per_s * parameters.transaction_s
        if self.rest_share >= 1:
            raise ValueError(f"{count} workers at rest are more than one core of Postgres can bear.")
        self._free_at = 0.0
        self._unfinished = 0

    @property
    def postgres_share(self) -> float:
        """Return the share of the simulated time so far, from 0 to 1, in which Postgres's one core was busy,
        with transactions of tasks or with those that workers make even without tasks.
        """
        return self.rest_share + self.postgres_busy_s / self.loop.now

    def run(self) -> None:
        """Simulate until all tasks that arrived within the simulated seconds are finished."""
        at = self._draw.expovariate(self._rate)
        while at < self._seconds:
            calls = tuple(
                self._draw.expovariate(1 / self._parameters.call_s)
                for _ in range(self._parameters.calls_per_task)
            )
            task = Task(at, calls)
            self.tasks.append(task)
            self.loop.at(at, lambda one=task: self._queue.append(one))  # type: ignore[misc]
            at += self._draw.expovariate(self._rate)
        self._unfinished = len(self.tasks)
        for worker in self._workers:
            self.loop.after(self._draw.random() * POLL_S, lambda one=worker: self._poll(one))  # type: ignore[misc]
            self._plan_death(worker)
        self.loop.run(lambda: self._unfinished > 0)

    def _poll(self, worker: Worker) -> None:
        most = max_active_tasks(self._parameters.calls_at_once)
        while worker.is_alive and self._queue and len(worker.active) < most:
            task = self._queue.popleft()
            worker.active[task] = None
            if task.lost_at is not None:
                task.pauses_s.append(self.loop.now - task.lost_at)
                task.lost_at = None
            worker.waiting.append(task)
            self._call(worker)
        self.loop.after(POLL_S, lambda: self._poll(worker))

    def _call(self, worker: Worker) -> None:
        while worker.waiting and worker.calling < self._parameters.calls_at_once:
            task, life = worker.waiting.popleft(), worker.life
            worker.calling += 1
            task.calls += 1
            self.loop.after(
                task.calls_s[task.done],
                lambda task=task, life=life: self._called(worker, life, task),  # type: ignore[misc]
            )

    def _called(self, worker: Worker, life: int, task: Task) -> None:
        if worker.life != life:  # the worker died during the call, and another one repeats it
            return
        worker.calling -= 1
        given = self._parameters
        is_last = task.done + 1 == len(task.calls_s)
        count = given.transactions_per_call + (given.transactions_per_task if is_last else 0)
        self._transact(count, lambda: self._recorded(worker, life, task))
        self._call(worker)

    def _recorded(self, worker: Worker, life: int, task: Task) -> None:
        if worker.life != life:
            return
        task.done += 1
        if task.done == len(task.calls_s):
            worker.active.pop(task, None)
            task.finished_at = self.loop.now
            task.finishes += 1
            self._unfinished -= 1
        else:
            worker.waiting.append(task)
            self._call(worker)

    def _transact(self, count: float, then: Callable[[], None]) -> None:
        """Wait until Postgres is free, keep it busy for the time of `count` transactions in a row, then call
        `then`.
        """
        work_s = count * self._parameters.transaction_s
        self.postgres_busy_s += work_s
        self._free_at = max(self._free_at, self.loop.now) + work_s / (1 - self.rest_share)
        self.loop.at(self._free_at, then)

    def _plan_death(self, worker: Worker) -> None:
        if self._dies_every_s:
            self.loop.after(self._draw.expovariate(1 / self._dies_every_s), lambda: self._die(worker))

    def _die(self, worker: Worker) -> None:
        worker.life += 1
        worker.is_alive = False
        worker.calling = 0
        worker.waiting.clear()
        lost = list(worker.active)
        worker.active.clear()
        for task in lost:
            task.lost_at = self.loop.now
        noticed_s = (
            DEAD_AFTER_S + self._draw.uniform(0, 2) * BEAT_S
        )  # up to one heartbeat interval since the last beat, and one until it is noticed
        self.loop.after(noticed_s, lambda: self._queue.extendleft(lost))
        self.loop.after(self._parameters.back_s, lambda: self._come_back(worker))

    def _come_back(self, worker: Worker) -> None:
        worker.is_alive = True
        self._plan_death(worker)
