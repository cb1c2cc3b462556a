"""Many processes on one real Postgres share the tasks, and take over the tasks of a dead worker."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.tasks.task_queue import POLL_S
from tests.component.orchestrator.conftest import Orchestrator, StandIn, call, wait_until
from tests.services.real_postgres import RealPostgres

pytestmark = pytest.mark.timeout(300)  # several processes start, and wait for each other's end

TAKEN_OVER_WITHIN_S = 30.0
ONE_CALL = {"SMART_WORKER_MAX_CONCURRENT": "1"}  # with one call at once a worker starts at most 4 tasks

Start = Callable[..., Orchestrator]


@pytest.fixture
def url(postgres: RealPostgres) -> str:
    return postgres.new_database()


@pytest.fixture
def start(
    repo: Path, tmp_path: Path, free_port: Callable[[], int], url: str, llm: StandIn
) -> Iterator[Start]:
    """Return a function that starts `run` or `worker` under a name, in its own home, on one Postgres."""
    started: list[Orchestrator] = []

    def begin(name: str, command: str = "worker", is_answering: bool = True, **env: str) -> Orchestrator:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        settings = {
            "MLX_API_URL": llm.url,
            "VESTAL_DATABASE_URL": url,
            "VESTAL_WORKER_ID": name,
            "VESTAL_KNOWLEDGE_DIR": str(tmp_path / "knowledge"),
            **env,
        }
        one = Orchestrator(repo, folder, free_port(), **settings)
        started.append(one.start(command, is_answering))
        if command == "worker":
            wait_until("the worker has started", lambda: one.events("tasks_engine_started"))
        return one

    yield begin
    for one in started:
        one.end()


def worked_by(one: Orchestrator) -> set[str]:
    return {event["task"] for event in one.events("step_started")}


def at_work(one: Orchestrator) -> set[str]:
    return worked_by(one) - {event["task"] for event in one.events("task_done")}


def lost(*survivors: Orchestrator) -> list[dict]:
    return [event for one in survivors for event in one.events("worker_lost") if event["tasks"]]


def asked(llm: StandIn, goal: str) -> int:
    return sum(goal in call["messages"][-1]["content"] for call in llm.calls("/api/chat"))


def all_done(one: Orchestrator, tasks: list[str], within_s: float = TAKEN_OVER_WITHIN_S + 60) -> None:
    unfinished = list(tasks)  # a task that is done is not looked at again

    def none_is_unfinished() -> bool:
        while unfinished and one.task(unfinished[0])["state"] == "done":
            del unfinished[0]
        return not unfinished

    wait_until("all done", none_is_unfinished, within_s)


def test_tasks_of_a_killed_worker_are_taken_over_and_their_finished_steps_not_repeated(
    start: Start, llm: StandIn
):
    one = start("one", "run", **ONE_CALL)
    first, second = start("first"), start("second", **ONE_CALL)
    done = [one.submit(f"goal number {n}.", agents=["lead"]) for n in range(4)]
    all_done(one, done)
    llm.control(hold=True)  # no call ends before the kill
    tasks = done + [one.submit(f"goal number {n}.", agents=["lead"]) for n in range(4, 16)]
    wait_until("it is in the middle of a call", lambda: at_work(first))
    first.end(signal.SIGKILL)
    killed_at = time.time()
    begun = at_work(first)
    llm.control(hold=False)

    all_done(one, tasks)

    [loss] = lost(one, second)
    assert loss["worker"] == "first"
    assert begun <= set(loss["tasks"])
    assert loss["ts"] - killed_at < TAKEN_OVER_WITHIN_S
    for n, task in enumerate(tasks):  # only a call that was in flight is repeated
        assert asked(llm, f"goal number {n}.") in ((1, 2) if task in begun else (1,))


def test_workers_together_respect_the_global_task_limit_and_can_cancel_each_others_tasks(
    start: Start, llm: StandIn
):
    limits = {**ONE_CALL, "VESTAL_TASKS_AT_ONCE": "6"}
    llm.control(mode="hang")
    one, other = start("one", "run", **limits), start("other", **limits)
    tasks = [one.submit(f"goal {n}.", agents=["lead"]) for n in range(12)]
    wait_until("so many are at work", lambda: len(at_work(one) | at_work(other)) >= 6)
    for _ in range(8):  # the workers poll the queue in the meantime
        time.sleep(POLL_S / 2)
        assert len(at_work(one) | at_work(other)) == 6
    assert at_work(one)
    theirs = next(iter(at_work(other)))
    assert one.ask(f"/tasks/{theirs}", method="DELETE")[0] == 200
    one.finished(theirs, "cancelled")
    llm.control(mode="ok")
    all_done(one, [task for task in tasks if task != theirs])
    assert one.task(theirs)["state"] == "cancelled"


def test_worker_ended_by_sigterm_releases_its_tasks_at_once(start: Start, llm: StandIn):
    one = start("one", "run", **ONE_CALL)
    other = start("other")
    llm.control(mode="hang")
    tasks = [one.submit(f"goal {n}.", agents=["lead"]) for n in range(8)]
    wait_until("the worker has some", lambda: at_work(other))
    assert other.end(signal.SIGTERM) == 0
    llm.control(mode="ok")
    all_done(one, tasks)
    assert not lost(one), "nobody had to notice that it is gone"


def test_worker_suspended_until_its_tasks_were_taken_over_exits_with_75_when_it_resumes(
    start: Start, llm: StandIn
):
    """A paused container or a machine that slept resumes in a task that another worker has taken over."""
    one = start("one", "run", **ONE_CALL)
    llm.control(hold=True)  # none of its tasks ends before it is suspended
    other = start("other")
    tasks = [one.submit(f"goal {n}.", agents=["lead"]) for n in range(8)]
    wait_until("the worker has some", lambda: at_work(other))
    assert other.child
    other.child.suspend()
    llm.control(hold=False)
    all_done(one, tasks)
    other.process.send_signal(signal.SIGCONT)
    assert other.process.wait(timeout=60) == 75
    assert other.events("worker_declared_dead")
    assert [step["name"] for step in one.task(tasks[0])["steps"]] == ["retrieve:lead", "answer:lead"]


def test_worker_without_a_database_url_exits_with_78_and_the_reason(
    orchestrator: Callable[..., Orchestrator],
):
    worker = orchestrator().start("worker")
    assert worker.process.wait(timeout=60) == 78
    assert "VESTAL_DATABASE_URL is not set" in worker.said()


def test_tasks_finish_after_a_restart_of_postgres(
    repo: Path, free_port: Callable[[], int], start: Start, llm: StandIn
):
    with RealPostgres(free_port()) as postgres:
        llm.control(delay_s=0.5)
        one = start("one", "run", VESTAL_DATABASE_URL=postgres.new_database())
        tasks = [one.submit(f"goal {n}.", agents=["lead"]) for n in range(6)]
        wait_until("some are done", lambda: one.events("task_done"))
        postgres.stop()
        status, answer = one.ask("/knowledge/search", {"query": "anything"})
        assert (status, answer["error"]["code"]) == (503, "database_unavailable")
        assert one.ask("/health")[0] == 200
        postgres.start()
        all_done(one, tasks)
        assert one.process.poll() is None
        one.end()


def test_knowledge_stored_in_postgres_is_found_by_another_orchestrator(
    start: Start, llm: StandIn, tmp_path: Path
):
    notes = tmp_path / "knowledge" / "docs"
    notes.mkdir(parents=True)
    (notes / "birds.md").write_text("# Birds\n\nThe heron eats fish at dawn.\n")
    (notes / "stones.md").write_text("# Stones\n\nGranite is hard.\n")
    one = start("one", "run")
    one.cycle("2 changed")
    one.end(signal.SIGKILL)
    two = start("two", "run")
    two.cycle("0 changed")
    found = two.ask("/knowledge/search", {"query": "what does the heron eat?", "k": 1})[1]
    assert found["by"] == ["meaning", "words"]
    assert [hit["file"] for hit in found["results"]] == ["birds.md"]
    task = two.finished(two.submit("what does the heron eat?", agents=["lead"]))
    assert task["sources"][0]["file"] == "birds.md"
    assert not (two.home / "orchestrator.db").exists()


def call_facts(llm: StandIn) -> dict:
    return call(f"{llm.url}/calls")[1]


def test_second_worker_with_the_same_name_exits_with_78_and_the_first_continues(start: Start, llm: StandIn):
    """Earlier, each of the two took the other's tasks and made the other exit, again and again."""
    one = start("one", "run")
    llm.control(delay_s=0.5)
    first = start("first")
    second = start("second", "run", VESTAL_WORKER_ID="first")
    tasks = [one.submit(f"goal {n}.", agents=["lead"]) for n in range(8)]
    assert second.process.wait(timeout=120) == 78
    [refused] = second.events("worker_refused")
    assert "another process already uses VESTAL_WORKER_ID=first on this database" in refused["cause"]
    all_done(one, tasks)
    assert first.process.poll() is None
    assert [asked(llm, f"goal {n}.") for n in range(8)] == [1] * 8


def test_worker_that_was_killed_can_restart_at_once_under_its_name(start: Start, llm: StandIn):
    llm.control(mode="hang")
    one = start("one", "run", SMART_WORKER_MAX_CONCURRENT="1")
    first = start("first")
    tasks = [one.submit(f"goal {n}.", agents=["lead"]) for n in range(12)]
    wait_until("the worker has some", lambda: at_work(first))
    first.end(signal.SIGKILL)
    assert one.child
    one.child.suspend()  # on a busy machine, the restart may take so long that the worker would count as lost
    start("first")
    one.process.send_signal(signal.SIGCONT)
    llm.control(mode="ok")
    all_done(one, tasks)
    assert not lost(one)


def test_orchestrator_started_on_a_database_without_free_connections_exits_with_75(
    start: Start, postgres: RealPostgres, url: str
):
    """Earlier, the orchestrator exited with 1, which a supervisor counts as a crash."""
    few = postgres.url_of_another_user(url, most_connections=3)
    one = start("one", "run", is_answering=False, VESTAL_DATABASE_URL=few)
    assert one.process.wait(timeout=60) == 75
    assert "too many connections" in one.events("process_failed")[0]["cause"]
