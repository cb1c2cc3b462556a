"""Maintain the table of workers in Postgres: one row per worker, with its heartbeat counter.

A name belongs to one process at a time, because two processes with the same name would take each other's
tasks and declare each other dead, again and again. Therefore a worker holds an advisory lock on its name,
which the server frees when the worker dies.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.errors import DatabaseFailed, NameTaken
from orchestrator.storage.postgres import HeldLock, PostgresDatabase
from orchestrator.workers.watch import Heartbeat

MAX_WORKERS_LOST = 10  # per task; a task that has ended this many workers would end the next one too
NAME_FREE_WITHIN_S = 20.0  # the server needs 14 s to notice that a machine is gone
TRY_AGAIN_S = 0.5
LOCK = "workers"  # no worker joins while another is declared dead


class Membership:
    """This process's own row in the table of workers. The worker's name `worker` survives restarts; the
    incarnation identifies this run of the process.
    """

    def __init__(self, database: PostgresDatabase, worker: str) -> None:
        self._database = database
        self.worker = worker
        self._incarnation = uuid.uuid4().hex
        self._claim: HeldLock | None = None

    def join(self, within_s: float = NAME_FREE_WITHIN_S) -> None:
        """Register this worker. Raises NameTaken if another live process still holds the name after
        `within_s` seconds.
        """
        deadline = time.monotonic() + within_s
        while not self._has_name():
            if time.monotonic() >= deadline:
                raise NameTaken(
                    f"another process already uses VESTAL_WORKER_ID={self.worker} on this database:"
                    " give each process its own, or leave it unset."
                )
            time.sleep(TRY_AGAIN_S)
        with self._database.briefly_locked(LOCK), self._database.connect() as db:
            db.execute(
                "INSERT INTO workers (worker, incarnation, beats, started_at) VALUES (?, ?, 0, ?)"
                " ON CONFLICT (worker) DO UPDATE SET incarnation = excluded.incarnation, beats = 0,"
                " started_at = excluded.started_at",
                (self.worker, self._incarnation, time.time()),
            )

    def _has_name(self) -> bool:
        if self._claim is None or not self._claim.holds():
            self._claim = self._database.hold_lock(f"worker {self.worker}")
        return self._claim is not None

    def beat(self) -> bool:
        """Increase this worker's heartbeat counter. Return False if this process was declared dead or another
        process has its name.
        """
        self._has_name()  # a lock that was lost with its connection is taken again when it is free
        with self._database.connect() as db:
            beaten = db.execute(
                "UPDATE workers SET beats = beats + 1 WHERE worker = ? AND incarnation = ?",
                (self.worker, self._incarnation),
            )
            return beaten.rowcount == 1

    def beats(self) -> dict[str, Heartbeat]:
        """Return the heartbeat of every worker by name."""
        with self._database.connect() as db:
            rows = db.execute("SELECT worker, incarnation, beats FROM workers").fetchall()
        return {row["worker"]: Heartbeat(row["incarnation"], row["beats"]) for row in rows}

    def leave(self) -> None:
        """Remove this worker from the table."""
        with self._database.connect() as db:
            db.execute(
                "DELETE FROM workers WHERE worker = ? AND incarnation = ?", (self.worker, self._incarnation)
            )

    def close(self) -> None:
        """Release the lock on this worker's name."""
        if self._claim is not None:
            self._claim.end()
            self._claim = None

    def ping(self) -> None:
        """Raise DatabaseFailed within seconds if the server does not answer."""
        with self._database.connect() as db:
            db.execute("SELECT 1")

    def failure(self, error: BaseException) -> DatabaseFailed | None:
        """Convert a database library's exception to DatabaseFailed; None if the exception is not about a
        database.
        """
        return self._database.failure(error)

    def check_writable(self) -> None:
        """Raise DatabaseFailed if Postgres does not accept a write to the table of workers, for example as a
        read-only standby. The write with which this is checked leaves this worker's row as it is.
        """
        with self._database.connect() as db:
            db.execute("UPDATE workers SET beats = beats WHERE worker = ?", (self.worker,))

    @contextmanager
    def removing(self, worker: str, last: Heartbeat) -> Iterator[bool]:
        """Remove a dead worker from the table when the `with` block ends, unless the block raises. During the
        block, hold the lock without which no worker can join.

        Yield True if the table has no other heartbeat of the worker than `last`. Otherwise yield False, and
        do not remove the worker, because it may be alive.
        """
        with self._database.briefly_locked(LOCK):
            if self.beats().get(worker, last) != last:
                yield False
                return
            yield True
            with self._database.connect() as db:
                db.execute(
                    "DELETE FROM workers WHERE worker = ? AND incarnation = ?", (worker, last.incarnation)
                )

    def tasks_exist(self) -> bool:
        """Return True if DBOS has created its tables."""
        with self._database.connect() as db:
            found = db.execute("SELECT to_regclass('dbos.workflow_status') IS NOT NULL AS found").fetchall()
        return bool(found[0]["found"])

    def forget(self, tasks: list[str]) -> None:
        """Delete the counts of workers that died while running these tasks."""
        with self._database.connect() as db:
            db.execute("DELETE FROM taken_over WHERE task = ANY(?)", (tasks,))

    def given_up(self, tasks: list[str]) -> set[str]:
        """Return those of the tasks that have lost more than MAX_WORKERS_LOST workers."""
        with self._database.connect() as db:
            rows = db.execute(
                "SELECT task FROM taken_over WHERE task = ANY(?) AND times > ?", (tasks, MAX_WORKERS_LOST)
            )
            return {row["task"] for row in rows}

    def lost_worker(self, task: str) -> bool:
        """Count one more worker that died while running this task. Return True if the task may run again."""
        with self._database.connect() as db:
            rows = db.execute(
                "INSERT INTO taken_over (task, times) VALUES (?, 1)"
                " ON CONFLICT (task) DO UPDATE SET times = taken_over.times + 1 RETURNING times",
                (task,),
            ).fetchall()
        return bool(rows[0]["times"] <= MAX_WORKERS_LOST)
