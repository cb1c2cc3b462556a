"""The workers' table in Postgres: a row for each, and its pulse.

A name belongs to one process at a time: two that had the same would each take the other's tasks for its own
and end each other, for ever. The name is a lock, which the server frees as soon as its holder is dead.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.errors import NameTaken
from orchestrator.storage.postgres import Claim, PostgresDatabase
from orchestrator.workers.watch import Beat

MOST_WORKERS_LOST = 10  # by one task: the next would be lost as well
NAME_FREE_WITHIN_S = 20.0  # the server notices in 14 s that a machine is gone
TRY_AGAIN_S = 0.5
LOCK = "workers"  # nobody joins while another is being buried


class Membership:
    """This process among the workers. Its name stays through restarts, its incarnation is of this life."""

    def __init__(self, database: PostgresDatabase, worker: str) -> None:
        self._database = database
        self.worker = worker
        self._incarnation = uuid.uuid4().hex
        self._claim: Claim | None = None

    def join(self, within_s: float = NAME_FREE_WITHIN_S) -> None:
        """NameTaken where another process that is alive has the name, and keeps it for so long."""
        deadline = time.monotonic() + within_s
        while not self._has_name():
            if time.monotonic() >= deadline:
                raise NameTaken(
                    f"another process works as VESTAL_WORKER_ID={self.worker} on this database:"
                    " give each its own, or leave it unset."
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
            self._claim = self._database.claim(f"worker {self.worker}")
        return self._claim is not None

    def beat(self) -> bool:
        """False where this life was declared dead, or another process took the name over."""
        self._has_name()  # a lock lost with its connection is taken anew, as soon as it is free
        with self._database.connect() as db:
            beaten = db.execute(
                "UPDATE workers SET beats = beats + 1 WHERE worker = ? AND incarnation = ?",
                (self.worker, self._incarnation),
            )
            return beaten.rowcount == 1

    def beats(self) -> dict[str, Beat]:
        with self._database.connect() as db:
            rows = db.execute("SELECT worker, incarnation, beats FROM workers").fetchall()
        return {row["worker"]: Beat(row["incarnation"], row["beats"]) for row in rows}

    def leave(self) -> None:
        with self._database.connect() as db:
            db.execute(
                "DELETE FROM workers WHERE worker = ? AND incarnation = ?", (self.worker, self._incarnation)
            )

    def close(self) -> None:
        """Let go of the name."""
        if self._claim is not None:
            self._claim.end()
            self._claim = None

    def look(self) -> None:
        """DatabaseFailed, within seconds, where the server does not answer."""
        with self._database.connect() as db:
            db.execute("SELECT 1")

    @contextmanager
    def burying(self, worker: str, last: Beat) -> Iterator[bool]:
        """Yields whether it is the caller's: one does it, and only while the pulse is the last one seen."""
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
        """Whether DBOS has made its tables yet."""
        with self._database.connect() as db:
            found = db.execute("SELECT to_regclass('dbos.workflow_status') IS NOT NULL AS found").fetchall()
        return bool(found[0]["found"])

    def forget(self, tasks: list[str]) -> None:
        with self._database.connect() as db:
            db.execute("DELETE FROM taken_over WHERE task = ANY(?)", (tasks,))

    def given_up(self, tasks: list[str]) -> set[str]:
        """Those of the tasks that lost more workers than MOST_WORKERS_LOST."""
        with self._database.connect() as db:
            rows = db.execute(
                "SELECT task FROM taken_over WHERE task = ANY(?) AND times > ?", (tasks, MOST_WORKERS_LOST)
            )
            return {row["task"] for row in rows}

    def lost_worker(self, task: str) -> bool:
        """One more worker died with this task; returns whether it may have another."""
        with self._database.connect() as db:
            rows = db.execute(
                "INSERT INTO taken_over (task, times) VALUES (?, 1)"
                " ON CONFLICT (task) DO UPDATE SET times = taken_over.times + 1 RETURNING times",
                (task,),
            ).fetchall()
        return bool(rows[0]["times"] <= MOST_WORKERS_LOST)
