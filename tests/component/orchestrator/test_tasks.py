"""Tasks in a real process: sources, idempotency keys, kills of the process, and unavailable backends."""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.component.orchestrator.conftest import TOKEN, Orchestrator, StandIn, wait_until

Make = Callable[..., Orchestrator]


def asked(llm: StandIn, goal: str) -> int:
    """Return the number of chat calls about this goal."""
    return sum(goal in call["messages"][-1]["content"] for call in llm.calls("/api/chat"))


def test_task_about_embedded_documents_is_answered_with_its_sources(
    orchestrator: Make, llm: StandIn, tmp_path: Path
):
    notes = tmp_path / "knowledge" / "docs"
    notes.mkdir(parents=True)
    (notes / "birds.md").write_text("# Birds\n\nThe heron eats fish at dawn.\n")
    (notes / "stones.md").write_text("# Stones\n\nGranite is hard.\n")
    one = orchestrator(MLX_API_URL=llm.url).start()
    one.cycle("2 changed")

    task = one.finished(one.submit("what does the heron eat?"))

    assert [step["name"] for step in task["steps"]] == ["retrieve:lead", "answer:lead"]
    assert all(step["state"] == "done" for step in task["steps"])
    assert task["answer"].startswith("The answer to:")
    assert task["sources"][0]["file"] == "birds.md"
    assert task["sources"][0]["heading"] == "Birds"
    assert "heron eats fish" in llm.calls("/api/chat")[0]["messages"][-1]["content"]


def test_task_submitted_again_with_the_same_idempotency_key_is_the_same_task(shared: Orchestrator):
    one, before = shared, len(shared.tasks())
    first = one.submit("only once please", idempotency_key="k-1")
    one.finished(first)
    assert one.submit("only once please", idempotency_key="k-1") == first
    second = one.submit("only once please", idempotency_key="k-2")
    assert second != first
    one.finished(second)  # another test compares the list of the tasks and their states
    assert len(one.tasks()) == before + 2


def test_task_beyond_the_queue_limit_gets_503_unless_it_has_the_idempotency_key_of_an_accepted_task(
    orchestrator: Make, llm: StandIn
):
    """Earlier, the queue had no limit, so a client that posted in a loop filled the disk."""
    one = orchestrator(MLX_API_URL=llm.url, VESTAL_MAX_UNFINISHED_TASKS="3").start()
    llm.control(hold=True)
    with ThreadPoolExecutor(12) as pool:
        statuses = list(
            pool.map(lambda n: one.ask("/tasks", {"goal": f"{n}", "idempotency_key": f"k{n}"})[0], range(12))
        )
    assert set(statuses) == {201, 503}
    assert statuses.count(201) <= 3
    accepted = [n for n, status in enumerate(statuses) if status == 201]
    while len(accepted) < 3:  # requests at once may be refused although a place was left
        one.submit(f"later {len(accepted)}", idempotency_key=f"later {len(accepted)}")
        accepted.append(-1)
    status, answer, headers = one.ask_with_headers("/tasks", {"goal": "too many"})
    assert (status, answer["error"]["code"], headers["Retry-After"]) == (503, "queue_full", "30")
    assert "3 tasks are unfinished" in answer["error"]["message"]
    assert "VESTAL_MAX_UNFINISHED_TASKS" in answer["error"]["message"]
    first = accepted[0]
    again = {"goal": f"{first}", "idempotency_key": f"k{first}"}
    assert one.ask("/tasks", again)[0] == 201
    assert one.ask("/tasks", {**again, "goal": "another"})[0] == 409
    llm.control(hold=False)
    wait_until("a place is free", lambda: one.ask("/tasks", {"goal": "now"})[0] == 201)


def test_task_with_the_idempotency_key_of_another_goal_is_refused_with_409(shared: Orchestrator):
    """Before, the second goal got the id of the first task and was never processed."""
    one = shared
    first = one.submit("the first goal", idempotency_key="k")
    assert one.submit(" the first goal ", idempotency_key="k", agents=["lead"]) == first
    status, answer = one.ask("/tasks", {"goal": "another goal", "idempotency_key": "k"})
    assert (status, answer["error"]["code"]) == (409, "idempotency_conflict")
    assert first in answer["error"]["message"]
    one.finished(first)
    assert one.submit("the first goal", idempotency_key="k") == first
    assert one.ask("/tasks", {"goal": "another goal", "idempotency_key": "k"})[0] == 409
    assert [t["goal"] for t in one.tasks() if "goal" in t["goal"]] == ["the first goal"]


@pytest.mark.parametrize("bad", ["\ud800", "a\udfffb", "\x00", "x\x00y"])
def test_task_with_invalid_unicode_is_refused_and_leaves_the_list_readable(shared: Orchestrator, bad: str):
    """Before, such a task was accepted, and then GET /tasks and its events failed."""
    one, before = shared, shared.tasks()
    refused = {
        "goal": one.ask("/tasks", {"goal": f"x{bad}"}),
        "idempotency_key": one.ask("/tasks", {"goal": "x", "idempotency_key": bad}),
        "agents": one.ask("/tasks", {"goal": "x", "agents": ["lead", bad]}),
        "query": one.ask("/knowledge/search", {"query": bad}),
        "agent": one.ask("/knowledge/search", {"query": "x", "agent": bad}),
        "more": one.ask("/tasks", {"goal": "x", "more": [{bad: 1}]}),
    }
    raw = one.ask("/tasks", b'{"goal": "\xed\xa0\x80"}')  # the surrogate as bytes, not as an escape
    assert (raw[0], raw[1]["error"]["code"]) == (400, "invalid_json")
    code = "invalid_request" if "\x00" in bad else "invalid_json"
    for name, (status, answer) in refused.items():
        assert (status, answer["error"]["code"]) == (400, code), name
        assert f"`{name}`" in answer["error"]["message"]
    assert one.tasks() == before
    good = one.submit("emoji \U0001f426 are text")
    assert "\U0001f426" in one.finished(good)["goal"]


def chats(role: str, *llms: StandIn) -> int:
    """Return the number of chat calls of this agent about the task with the goal "survive this"."""
    found = (call["messages"] for llm in llms for call in llm.calls("/api/chat"))
    return sum(m[0]["content"].startswith(f"You are {role}") and "survive" in m[-1]["content"] for m in found)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_task_of_a_killed_orchestrator_finishes_without_repeating_a_step(
    orchestrator: Make, llm: StandIn, children: Callable[..., StandIn], tmp_path: Path, number: int
):
    slow = children("fake_llm.py", "--models", "slow")
    slow.control(hold=True)  # the second step cannot end before the kill
    agents = tmp_path / "agents.yaml"
    agents.write_text("agents:\n  first: {prompt: Be first.}\n  second: {prompt: Be second., model: slow}\n")
    one = orchestrator(
        MLX_API_URL=f"{llm.url},{slow.url}", VESTAL_AGENTS_FILE=str(agents), SMART_WORKER_MAX_CONCURRENT="1"
    ).start()
    task_id = one.submit("survive this", agents=["first", "second"])
    wait_until("the second step is at work", lambda: chats("second", slow) == 1)
    queued = one.submit("and this waits its turn")  # for the only call at a time, which the second step holds
    assert chats("first", llm) == 1
    began = one.task(task_id)["started_at"]
    assert one.child
    one.child.end(number)
    slow.control(hold=False)

    one.start()
    task = one.finished(task_id)

    assert task["started_at"] == began <= task["steps"][0]["started_at"]
    assert [s["name"] for s in task["steps"]] == [
        "retrieve:first",
        "answer:first",
        "retrieve:second",
        "answer:second",
        "join",
    ]
    assert chats("first", llm, slow) == 1, "a finished step was run again"
    assert chats("second", llm, slow) == 2, "the step in flight at the kill is run once more"
    assert chats("the lead", llm, slow) == 1
    one.finished(queued)


def test_task_without_a_backend_waits_and_finishes_when_one_appears(
    orchestrator: Make, children: Callable[..., StandIn], free_port: Callable[[], int]
):
    port = free_port()
    one = orchestrator(
        MLX_API_URL=f"http://127.0.0.1:{port}", ORCHESTRATOR_HEALTH_MONITOR_INTERVAL="0.5"
    ).start()
    task_id = one.submit("patience")
    waiting = wait_until(
        "it says what it waits for",
        lambda: (
            (s := one.task(task_id)["steps"]) and "no LLM backend is healthy" in s[-1].get("detail", "") and s
        ),
    )
    assert waiting[-1]["state"] == "running"
    children("fake_llm.py", port=port)
    assert one.finished(task_id)["answer"]


@pytest.mark.parametrize("mode", ["empty", "error"])
def test_task_whose_backend_gives_empty_answers_or_errors_is_retried(
    shared: Orchestrator, shared_llm: StandIn, mode: str
):
    one, llm, goal = shared, shared_llm, f"try again after {mode}"
    llm.control(mode=mode)
    task_id = one.submit(goal)

    def was_tried() -> bool:
        # A host with errors fails the checks, too. If one comes before the second try, the task waits for it.
        return asked(llm, goal) >= 2 or "no LLM backend is healthy" in str(one.task(task_id)["steps"])

    wait_until("it was tried", was_tried)
    assert one.task(task_id)["state"] == "running"
    llm.control(mode="ok")
    assert one.finished(task_id)["answer"]


def test_task_cancelled_during_a_hanging_call_lets_the_next_task_run(orchestrator: Make, llm: StandIn):
    one = orchestrator(MLX_API_URL=llm.url, SMART_WORKER_MAX_CONCURRENT="1").start()
    one.cycle()
    llm.control(delay_s=3600)
    stuck = one.submit("stuck")
    wait_until("it is asked", lambda: asked(llm, "stuck"))
    llm.control(delay_s=0)
    began = one.task(stuck)["started_at"]
    waits = one.submit("next in line")
    assert one.ask(f"/tasks/{stuck}", method="DELETE") == (200, {"id": stuck, "state": "cancelled"})
    assert one.finished(waits)["answer"]
    cancelled = one.task(stuck)
    assert cancelled["state"] == "cancelled"
    assert began and cancelled["started_at"] == began, "its time was deleted with the cancellation"
    [listed] = [task for task in one.tasks() if task["id"] == stuck]
    assert listed["started_at"] == began
    assert one.ask(f"/tasks/{waits}", method="DELETE")[0] == 409


def test_task_event_stream_ends_with_the_answer_when_the_task_is_done(shared: Orchestrator):
    one = shared
    task_id = one.submit("tell me all the while")
    request = urllib.request.Request(
        f"{one.url}/tasks/{task_id}/events", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    with urllib.request.urlopen(request, timeout=60) as stream:
        assert stream.headers["Content-Type"] == "text/event-stream"
        lines = stream.read().decode().splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert events[-1]["state"] == "done"
    assert events[-1]["answer"]
    assert {"queued", "running", "done"} >= {t["state"] for t in events}


def test_orchestrator_started_with_corrupt_databases_renames_them_and_reports_it(
    orchestrator: Make, llm: StandIn
):
    one = orchestrator(MLX_API_URL=llm.url)
    one.home.mkdir()
    for name in ("orchestrator.db", "orchestrator-tasks.db"):
        (one.home / name).write_bytes(b"this is no database, " * 400)
    one.start()
    cycle = one.cycle("orchestrator.db was corrupt", "orchestrator-tasks.db was corrupt")
    assert len(cycle["notices"]) == 2
    assert len(list(one.home.glob("*.corrupt-*"))) == 2
    assert one.finished(one.submit("it works all the same"))["answer"]
