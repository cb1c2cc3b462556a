"""The workers' table on a real Postgres: one burial a death, and none of the living."""

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
from tests.real_postgres import RealPostgres


@dataclass
class Tasks:
    """The record of tasks, as one list that all reapers share."""

    by_worker: dict[str, list[str]] = field(default_factory=dict)
    here: set[str] = field(default_factory=set)
    queued: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)

    def at_work(self) -> dict[str, list[str]]:
        return {worker: list(tasks) for worker, tasks in self.by_worker.items() if tasks}

    def queue_again(self, tasks: list[str]) -> None:
        self.queued += tasks
        for mine in self.by_worker.values():
            mine[:] = [task for task in mine if task not in tasks]

    def give_up(self, task: str) -> None:
        self.given_up.append(task)
        for mine in self.by_worker.values():
            if task in mine:
                mine.remove(task)


class Room:
    """Workers by name on one database, with one clock that the test moves."""

    def __init__(self, database: PostgresDatabase) -> None:
        self.database = database
        self.tasks = Tasks()
        self.now = 0.0
        self.reapers: dict[str, Reaper] = {}
        self.members: dict[str, Membership] = {}

    def join(self, name: str) -> Membership:
        """As a process that starts; one of that name before it is gone, and the server knows."""
        if name in self.members:
            self.members[name].close()
        membership = self.members[name] = Membership(self.database, name)
        membership.join()
        self.reapers[name] = Reaper(membership, self.tasks, lambda: self.now)
        return membership

    def rounds(self, *names: str, for_s: float = DEAD_AFTER_S) -> None:
        """Each of them beats and looks around; nobody else does."""
        until = self.now + for_s
        while self.now < until:
            self.now += BEAT_S
            for name in names:
                self.reapers[name].round()


@pytest.fixture
def room(postgres: RealPostgres) -> Iterator[Room]:
    database = PostgresDatabase(postgres.new_database())
    database.prepare()
    room = Room(database)
    yield room
    for member in room.members.values():
        member.close()
    database.close()


def test_reapers_of_a_dead_worker_queue_its_tasks_only_once(room: Room):
    for name in ("a", "b", "c"):
        room.join(name)
    room.tasks.by_worker = {"c": ["t1", "t2"], "a": ["t3"]}
    room.tasks.here = {"t3"}
    room.rounds("a", "b", for_s=DEAD_AFTER_S + BEAT_S)
    assert room.tasks.queued == ["t1", "t2"]
    assert room.tasks.at_work() == {"a": ["t3"]}


def test_reaper_declared_dead_raises(room: Room):
    room.join("a")
    room.join("b")
    room.rounds("a", for_s=DEAD_AFTER_S + BEAT_S)
    with pytest.raises(DeclaredDead):
        room.reapers["b"].round()
    room.rounds("a", for_s=10 * DEAD_AFTER_S)


def test_task_taken_by_a_worker_after_its_removal_is_queued_again(room: Room):
    room.join("a")
    room.join("b")
    room.rounds("a", for_s=DEAD_AFTER_S + BEAT_S)
    room.tasks.by_worker["b"] = ["late"]
    room.rounds("a", for_s=DEAD_AFTER_S + BEAT_S)
    assert room.tasks.queued == ["late"]


def test_worker_restarted_in_time_keeps_its_tasks(room: Room):
    """DBOS goes on with them by itself: a second time would be once too often."""
    room.join("a")
    room.join("b")
    room.tasks.by_worker = {"b": ["t"]}
    room.rounds("a", for_s=DEAD_AFTER_S - BEAT_S)
    room.join("b")
    room.tasks.here = {"t"}
    room.rounds("a", "b", for_s=2 * DEAD_AFTER_S)
    assert room.tasks.queued == []


def test_worker_that_restarts_just_before_its_removal_is_not_removed(room: Room):
    room.join("a")
    old = room.join("b")
    last = old.beats()["b"]
    room.join("b")
    with Membership(room.database, "a").removing("b", last) as ours:
        assert not ours
    room.reapers["b"].round()  # and is not told that it is dead


def test_second_worker_with_the_same_name_is_refused_and_the_first_goes_on(room: Room):
    """Each took the other's name and tasks, and ended it, in turns and without an end."""
    first = room.join("a")
    with pytest.raises(NameTaken, match="another process already uses VESTAL_WORKER_ID=a on this database"):
        Membership(room.database, "a").join(within_s=0)
    assert first.beat()


def test_worker_after_a_lost_connection_keeps_its_name(room: Room):
    first = room.join("a")
    with room.database.connect() as db:
        db.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
    assert first.beat()
    with pytest.raises(NameTaken):
        Membership(room.database, "a").join(within_s=0)


def test_worker_whose_name_was_taken_over_cannot_beat(room: Room):
    first = room.join("a")
    room.join("a")
    assert not first.beat()


def test_task_that_kills_too_many_workers_fails(room: Room):
    survivor = room.join("a")
    for n in range(MAX_WORKERS_LOST + 1):
        room.tasks.by_worker[f"w{n}"] = ["poison", f"innocent {n}"]
        room.rounds("a", for_s=DEAD_AFTER_S + BEAT_S)
    assert room.tasks.given_up == ["poison"]
    assert room.tasks.queued.count("poison") == MAX_WORKERS_LOST
    assert f"innocent {MAX_WORKERS_LOST}" in room.tasks.queued
    assert survivor.given_up(["poison", "innocent 0"]) == {"poison"}


def test_task_recorded_for_a_worker_that_does_not_run_it_is_queued_again(room: Room):
    """The database went away between the giving out and the answer."""
    room.join("a")
    room.tasks.here = {"at work"}
    room.tasks.by_worker = {"a": ["at work", "astray"]}
    room.rounds("a", for_s=DEAD_AFTER_S)
    assert room.tasks.queued == []
    room.rounds("a", for_s=BEAT_S)
    assert room.tasks.queued == ["astray"]


def test_prepare_by_many_processes_at_once_migrates_once(
    postgres: RealPostgres, capfd: pytest.CaptureFixture[str]
):
    url = postgres.new_database()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: PostgresDatabase(url).prepare(), range(8)))
    assert capfd.readouterr().out.count("database_migrated") == 1


def test_dbos_sessions_idle_in_a_transaction_end_before_a_worker_counts_as_dead(room: Room):
    """DBOS sets 60 s on each of its own: the tasks of a worker frozen in mid-transaction waited as long."""
    tasks = PostgresTasks(PatientConnect("postgresql://h/d"), Membership(room.database, "w"), None)
    assert config_of(tasks)["sys_db_idle_transaction_timeout_sec"] < DEAD_AFTER_S
