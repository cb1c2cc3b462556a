"""The table of workers on a real Postgres: each dead worker is removed once, and no live worker."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from orchestrator.errors import NameTaken
from orchestrator.storage.postgres import PostgresDatabase
from orchestrator.storage.postgres_connection import PatientConnect
from orchestrator.tasks.database import PostgresTasks
from orchestrator.tasks.dbos_setup import config_of
from orchestrator.workers.membership import MAX_WORKERS_LOST, Membership
from orchestrator.workers.reaper import DeclaredDead, Reaper
from orchestrator.workers.watch import BEAT_S, DEAD_AFTER_S
from tests.services.real_postgres import RealPostgres


@dataclass
class Tasks:
    """A record of tasks that all reapers share."""

    by_worker: dict[str, list[str]] = field(default_factory=dict)
    here: set[str] = field(default_factory=set)
    queued: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)

    def at_work(self) -> dict[str, list[str]]:
        return {worker: list(tasks) for worker, tasks in self.by_worker.items() if tasks}

    def queue_again(self, worker: str, tasks: list[str]) -> None:
        mine = self.by_worker.get(worker, [])
        self.queued += [task for task in tasks if task in mine]
        mine[:] = [task for task in mine if task not in tasks]

    def give_up(self, task: str) -> None:
        self.given_up.append(task)
        for mine in self.by_worker.values():
            if task in mine:
                mine.remove(task)


class Workers:
    """Workers by name on one database, with a clock that the test sets."""

    def __init__(self, database: PostgresDatabase) -> None:
        self.database = database
        self.tasks = Tasks()
        self.now = 0.0
        self.reapers: dict[str, Reaper] = {}
        self.members: dict[str, Membership] = {}

    def join(self, name: str) -> Membership:
        """Join as a new process; an earlier process of that name has exited, and its connection is closed."""
        if name in self.members:
            self.members[name].close()
        membership = self.members[name] = Membership(self.database, name)
        membership.join()
        self.reapers[name] = Reaper(membership, self.tasks, lambda: self.now)
        return membership

    def rounds(self, *names: str, for_s: float = DEAD_AFTER_S) -> None:
        """Let the named workers beat and watch for `for_s` seconds; the others do nothing."""
        until = self.now + for_s
        while self.now < until:
            self.now += BEAT_S
            for name in names:
                self.reapers[name].round()


@pytest.fixture
def workers(postgres: RealPostgres) -> Iterator[Workers]:
    database = PostgresDatabase(postgres.new_database())
    database.prepare()
    workers = Workers(database)
    yield workers
    for member in workers.members.values():
        member.close()
    database.close()


def test_tasks_of_a_dead_worker_are_queued_only_once_by_the_other_workers(workers: Workers):
    for name in ("a", "b", "c"):
        workers.join(name)
    workers.tasks.by_worker = {"c": ["t1", "t2"], "a": ["t3"]}
    workers.tasks.here = {"t3"}
    workers.rounds("a", "b", for_s=DEAD_AFTER_S + BEAT_S)
    assert workers.tasks.queued == ["t1", "t2"]
    assert workers.tasks.at_work() == {"a": ["t3"]}


def test_worker_that_was_declared_dead_raises_at_its_next_round(workers: Workers):
    workers.join("a")
    workers.join("b")
    workers.rounds("a", for_s=DEAD_AFTER_S + BEAT_S)
    with pytest.raises(DeclaredDead):
        workers.reapers["b"].round()
    workers.rounds("a", for_s=10 * DEAD_AFTER_S)


def test_task_assigned_to_a_worker_after_its_removal_is_queued_again(workers: Workers):
    workers.join("a")
    workers.join("b")
    workers.rounds("a", for_s=DEAD_AFTER_S + BEAT_S)
    workers.tasks.by_worker["b"] = ["late"]
    workers.rounds("a", for_s=DEAD_AFTER_S + BEAT_S)
    assert workers.tasks.queued == ["late"]


def test_worker_that_restarts_before_it_counts_as_dead_keeps_its_tasks(workers: Workers):
    """DBOS resumes the tasks of a restarted worker itself; queueing them again would run them twice."""
    workers.join("a")
    workers.join("b")
    workers.tasks.by_worker = {"b": ["t"]}
    workers.rounds("a", for_s=DEAD_AFTER_S - BEAT_S)
    workers.join("b")
    workers.tasks.here = {"t"}
    workers.rounds("a", "b", for_s=2 * DEAD_AFTER_S)
    assert workers.tasks.queued == []


def test_worker_that_restarts_just_before_its_removal_is_not_removed(workers: Workers):
    workers.join("a")
    old = workers.join("b")
    last = old.beats()["b"]
    workers.join("b")
    with Membership(workers.database, "a").removing("b", last) as ours:
        assert not ours
    workers.reapers["b"].round()  # does not raise DeclaredDead


def test_second_worker_with_the_same_name_is_refused_and_the_first_continues(workers: Workers):
    """Two such workers once took each other's name and tasks and made each other exit, without end."""
    first = workers.join("a")
    with pytest.raises(NameTaken, match="another process already uses VESTAL_WORKER_ID=a on this database"):
        Membership(workers.database, "a").join(within_s=0)
    assert first.beat()


def test_worker_keeps_its_name_after_its_database_connection_was_lost(workers: Workers):
    first = workers.join("a")
    with workers.database.connect() as db:
        db.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
    assert first.beat()
    with pytest.raises(NameTaken):
        Membership(workers.database, "a").join(within_s=0)


def test_worker_whose_name_was_taken_over_cannot_send_a_heartbeat(workers: Workers):
    first = workers.join("a")
    workers.join("a")
    assert not first.beat()


def test_task_whose_workers_died_too_often_fails(workers: Workers):
    survivor = workers.join("a")
    for n in range(MAX_WORKERS_LOST + 1):
        workers.tasks.by_worker[f"w{n}"] = ["poison", f"innocent {n}"]
        workers.rounds("a", for_s=DEAD_AFTER_S + BEAT_S)
    assert workers.tasks.given_up == ["poison"]
    assert workers.tasks.queued.count("poison") == MAX_WORKERS_LOST
    assert f"innocent {MAX_WORKERS_LOST}" in workers.tasks.queued
    assert survivor.given_up(["poison", "innocent 0"]) == {"poison"}


def test_task_recorded_for_a_worker_that_does_not_run_it_is_queued_again(workers: Workers):
    """The database was lost between the assignment of the task and the answer."""
    workers.join("a")
    workers.tasks.here = {"at work"}
    workers.tasks.by_worker = {"a": ["at work", "astray"]}
    workers.rounds("a", for_s=DEAD_AFTER_S)
    assert workers.tasks.queued == []
    workers.rounds("a", for_s=BEAT_S)
    assert workers.tasks.queued == ["astray"]


def test_database_prepared_by_many_threads_at_once_is_migrated_once(
    postgres: RealPostgres, capfd: pytest.CaptureFixture[str]
):
    url = postgres.new_database()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: PostgresDatabase(url).prepare(), range(8)))
    assert capfd.readouterr().out.count("database_migrated") == 1


def test_dbos_sessions_idle_in_a_transaction_end_before_a_worker_counts_as_dead(workers: Workers):
    """DBOS's own limit is 60 s: the tasks of a worker that froze in a transaction waited as long."""
    tasks = PostgresTasks(PatientConnect("postgresql://h/d"), Membership(workers.database, "w"), None)
    assert config_of(tasks)["sys_db_idle_transaction_timeout_sec"] < DEAD_AFTER_S
