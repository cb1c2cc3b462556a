"""The orchestrator on a full or broken disk: it answers 503 meanwhile, and then continues by itself."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.component.orchestrator import small_disk
from tests.component.orchestrator.conftest import Orchestrator, StandIn, wait_until
from tests.component.orchestrator.small_disk import SmallDisk
from tests.waiting import looks

Make = Callable[..., Orchestrator]
TRY_AGAIN_EXIT_CODE = 75
ROUTES = [
    ("POST", "/tasks", {"goal": "one"}),
    ("GET", "/tasks", None),
    ("GET", "/tasks/none", None),
    ("DELETE", "/tasks/none", None),
    ("GET", "/cycles", None),
    ("POST", "/knowledge/search", {"query": "fox"}),
    ("GET", "/knowledge/notes", None),
    ("GET", "/metrics", None),
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    mounted = small_disk.mount(tmp_path / "home", size_mb=4)
    yield mounted
    mounted.unmount()


@pytest.fixture
def on_disk(orchestrator: Make, llm: StandIn, disk: SmallDisk) -> Orchestrator:
    one = orchestrator(MLX_API_URL=llm.url, ORCHESTRATOR_CYCLE_INTERVAL="1")
    one.prefix = disk.prefix
    return one


def answer(one: Orchestrator, method: str, path: str, body: Any) -> tuple[int, str, str]:
    """Return status, `Retry-After` and the error's message of a request."""
    status, said, headers = one.ask_with_headers(path, body, method)
    return status, headers.get("Retry-After", ""), said["error"]["message"] if status >= 400 else ""


def assert_unavailable_at_most(one: Orchestrator) -> set[int]:
    """Ask every route: each works, or answers 503 with `Retry-After`. Return the statuses."""
    seen = set()
    for method, path, body in ROUTES:
        status, retry_after, said = answer(one, method, path, body)
        assert status in (200, 201, 404, 503), (method, path, status, said)
        assert (status == 503) == bool(retry_after), (method, path, said)
        seen.add(status)
    return seen


def test_orchestrator_on_a_full_disk_serves_or_answers_503_on_every_route_until_there_is_space(
    on_disk: Orchestrator, disk: SmallDisk
):
    """Earlier, POST /tasks was a 500 (sqlite3.OperationalError: database or disk is full)."""
    on_disk.start()
    on_disk.finished(on_disk.submit("before"))
    disk.fill()
    assert 503 in assert_unavailable_at_most(on_disk)
    status, retry_after, said = answer(
        on_disk, "POST", "/tasks", {"goal": "what about this?", "idempotency_key": "k"}
    )
    assert (status, retry_after) == (503, "5")
    assert "orchestrator-tasks.db cannot be used" in said
    assert "free some space" in said
    wait_until("the cycles wait", lambda: on_disk.events("cycle_waits"))
    status, health = on_disk.ask("/health")
    assert (status, health["status"], "free some space" in health["database"]) == (200, "degraded", True)
    disk.empty()
    on_disk.finished(on_disk.submit("what about this?", idempotency_key="k"))
    assert assert_unavailable_at_most(on_disk) == {200, 201, 404}
    before = len(on_disk.events("cycle_finished"))
    wait_until("cycles run again", lambda: len(on_disk.events("cycle_finished")) > before)
    health = on_disk.ask("/health")[1]
    assert (health["status"], health["database"]) == ("ok", "ok")
    assert on_disk.process.poll() is None
    assert not on_disk.events("request_failed")


def test_task_step_that_ends_on_a_full_disk_is_recorded_without_repetition_once_there_is_space(
    on_disk: Orchestrator, llm: StandIn, disk: SmallDisk
):
    """Earlier, DBOS took "database or disk is full" for a failure of the task, which was never done."""
    on_disk.start()
    on_disk.finished(on_disk.submit("before"))
    llm.control(hold=True)
    task = on_disk.submit("a long answer")
    wait_until("its step runs", lambda: any(s["state"] == "running" for s in on_disk.task(task)["steps"]))
    disk.fill()
    llm.control(hold=False)
    (waits,) = wait_until("the task waits", lambda: on_disk.events("tasks_wait"))
    assert "free some space" in waits["cause"]
    assert on_disk.task(task)["state"] == "running"
    disk.empty()
    done = on_disk.finished(task)
    assert [step["state"] for step in done["steps"]] == ["done", "done"]
    asked = [c for c in llm.calls("/api/chat") if "a long answer" in c["messages"][-1]["content"]]
    assert len(asked) == 1, "a finished step is not paid for twice"


def test_orchestrator_started_on_a_full_disk_waits_for_space_and_then_serves(
    on_disk: Orchestrator, disk: SmallDisk
):
    """The orchestrator once ended with exit code 78, as for a wrong setting, and was not restarted."""
    disk.fill()
    on_disk.start()
    assert on_disk.ask("/health")[0] == 200
    assert 503 in assert_unavailable_at_most(on_disk)
    pid = on_disk.process.pid
    disk.empty()
    on_disk.finished(on_disk.submit("after"))
    assert assert_unavailable_at_most(on_disk) == {200, 201, 404}
    assert (on_disk.process.pid, on_disk.process.poll()) == (pid, None)


def test_nightly_process_started_on_a_full_disk_waits_for_space_without_exiting(
    on_disk: Orchestrator, disk: SmallDisk
):
    disk.fill()
    on_disk.start("nightly")
    wait_until("it waits", lambda: on_disk.events("nightly_waits"))
    disk.empty()
    assert on_disk.process.poll() is None


def test_orchestrator_on_a_read_only_disk_serves_or_answers_503_on_every_route(
    on_disk: Orchestrator, disk: SmallDisk
):
    disk.remount("ro")
    on_disk.start()
    assert 503 in assert_unavailable_at_most(on_disk)
    status, _, said = answer(on_disk, "POST", "/tasks", {"goal": "one"})
    assert (status, "make it writable" in said) == (503, True), said
    disk.remount("rw")
    on_disk.finished(on_disk.submit("after"))
    assert assert_unavailable_at_most(on_disk) == {200, 201, 404}


def test_knowledge_request_while_the_database_is_locked_is_a_503_with_the_reason(
    orchestrator: Make, llm: StandIn
):
    one = orchestrator(MLX_API_URL=llm.url).start()
    one.cycle()
    with closing(sqlite3.connect(one.home / "orchestrator.db")) as db:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("BEGIN EXCLUSIVE")
        db.execute("UPDATE meta SET value = value")
        status, retry_after, said = answer(one, "GET", "/knowledge/notes", None)
        db.rollback()
    assert (status, retry_after) == (503, "5")
    assert "another program holds it" in said
    assert answer(one, "GET", "/cycles", None)[0] == 200


def damage(path: Path, how: str) -> None:
    """Delete a SQLite file, or write random bytes into it."""
    if how == "deleted":
        path.unlink()
        return
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        for offset in range(8192, os.path.getsize(path), 4096):
            file.seek(offset)
            file.write(os.urandom(4096))


@pytest.mark.parametrize("how", ["damaged", "deleted"])
def test_task_database_damaged_or_deleted_while_in_use_is_replaced_at_the_next_start(
    orchestrator: Make, llm: StandIn, how: str
):
    """DBOS once continued in a file that could not be opened any more, and the tasks that it accepted were
    lost.
    """
    one = orchestrator(MLX_API_URL=llm.url, ORCHESTRATOR_CYCLE_INTERVAL="1")
    said: tuple[int, str, str] | None = None
    for _ in looks(60):  # the orchestrator looks for its file every 2 s, and may end before it is asked
        one.start()
        one.finished(one.submit("before"))
        damage(one.home / "orchestrator-tasks.db", how)
        with contextlib.suppress(OSError):
            said = answer(one, "POST", "/tasks", {"goal": "meanwhile"})
        assert one.process.wait(timeout=60) == TRY_AGAIN_EXIT_CODE
        if said:
            break
    assert said and said[:2] == (503, "5"), said
    assert bool(list(one.home.glob("orchestrator-tasks.db.corrupt-*"))) == (how == "damaged")
    one.start()
    one.finished(one.submit("after"))
