"""Several agents on one task: the lead plans, they work in parallel, and no finished step is repeated."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator.tasks import budget
from tests.component.orchestrator.conftest import Orchestrator, StandIn, call, wait_until

Make = Callable[..., Orchestrator]
Start = Callable[..., StandIn]

CREW = """
agents:
  reader: {role: the reader, prompt: Read.}
  thinker: {role: the thinker, prompt: Think., tools: []}
  critic: {role: the critic, prompt: Doubt., tools: []}
"""
PLANS = "Say which agents"


def crew(tmp_path: Path) -> str:
    path = tmp_path / "agents.yaml"
    path.write_text(CREW)
    return str(path)


def names(task: dict) -> list[str]:
    return [step["name"] for step in task["steps"]]


def of(llm: StandIn, role: str) -> list[dict]:
    """Return the chat calls of one agent."""
    return [c for c in llm.calls("/api/chat") if c["messages"][0]["content"].startswith(f"You are {role}.")]


def test_task_planned_by_the_lead_is_answered_by_the_agents_that_the_plan_names(
    orchestrator: Make, llm: StandIn, tmp_path: Path
):
    folder = tmp_path / "knowledge" / "reader"
    folder.mkdir(parents=True)
    (folder / "birds.md").write_text("# Birds\n\nThe heron eats fish at dawn.\n")
    llm.control(say={PLANS: "Sure!\n1. **reader**: find what the heron eats\n2. critic: doubt it"})
    one = orchestrator(MLX_API_URL=llm.url, VESTAL_AGENTS_FILE=crew(tmp_path)).start()
    one.cycle("1 changed")

    task = one.finished(one.submit("all about the heron"))

    assert names(task) == [
        *("plan", "retrieve:reader", "answer:reader", "retrieve:critic", "answer:critic", "join")
    ]
    assert [(a["agent"], a["goal"]) for a in task["answers"]] == [
        ("reader", "find what the heron eats"),
        ("critic", "doubt it"),
    ]
    assert [[s["file"] for s in a["sources"]] for a in task["answers"]] == [["birds.md"], []]
    assert [s["file"] for s in task["sources"]] == ["birds.md"]
    asked = of(llm, "the reader")[0]["messages"][1]["content"]
    assert "all about the heron" in asked and "Your part of it: find what the heron eats" in asked
    joined = llm.calls("/api/chat")[-1]["messages"][1]["content"]
    assert "reader wrote:" in joined and "critic wrote:" in joined


def test_task_after_a_nightly_run_is_planned_and_answered_with_the_nightly_notes(
    orchestrator: Make, llm: StandIn, tmp_path: Path
):
    folder = tmp_path / "knowledge" / "reader"
    folder.mkdir(parents=True)
    (folder / "birds.md").write_text("# Birds\n\nThe heron eats fish at dawn.\n")
    llm.control(say={PLANS: "reader: look it up", "Below is a list of notes": "All about herons."})
    one = orchestrator(MLX_API_URL=llm.url, VESTAL_AGENTS_FILE=crew(tmp_path)).start()
    one.cycle("1 changed")
    with closing(sqlite3.connect(one.home / "orchestrator.db", timeout=10)) as db, db:
        db.execute("INSERT OR REPLACE INTO meta VALUES ('nightly_done_at', '1000000')")
    night = orchestrator(MLX_API_URL=llm.url, VESTAL_AGENTS_FILE=crew(tmp_path)).start("nightly")
    wait_until("the night's run", lambda: night.events("nightly_run_finished"))

    task = one.finished(one.submit("what of the heron"))

    assert [a["agent"] for a in task["answers"]] == ["reader"]
    planned = next(c for c in llm.calls("/api/chat") if PLANS in c["messages"][0]["content"])
    known = '- reader — the reader. Read. Its notes are about: "All about herons."'
    assert known in planned["messages"][1]["content"]
    asked = of(llm, "the reader")[-1]["messages"][1]["content"]
    assert asked.index("The heron eats fish") < asked.index('"All about herons."') < asked.index("Goal: ")


def test_task_whose_plan_cannot_be_read_asks_every_agent_and_says_so(
    orchestrator: Make, llm: StandIn, tmp_path: Path
):
    one = orchestrator(MLX_API_URL=llm.url, VESTAL_AGENTS_FILE=crew(tmp_path)).start()
    task = one.finished(one.submit("whatever"))
    assert [a["agent"] for a in task["answers"]] == ["reader", "thinker", "critic"]
    assert "named no agent" in task["notes"][0]


def test_task_agents_work_in_parallel_up_to_the_limit(orchestrator: Make, llm: StandIn, tmp_path: Path):
    one = orchestrator(
        MLX_API_URL=llm.url, VESTAL_AGENTS_FILE=crew(tmp_path), SMART_WORKER_MAX_CONCURRENT="2"
    ).start()
    llm.control(hold=True, delay_s=1.5)
    task_id = one.submit("side by side", agents=["reader", "thinker", "critic"])

    def at_work() -> set[str]:
        return {step["name"] for step in one.task(task_id)["steps"] if step["state"] == "running"}

    wait_until("two are at work", lambda: at_work() == {"answer:reader", "answer:thinker"})
    llm.control(hold=False)  # each call goes on for 1.5 s, in which a third one would begin
    one.finished(task_id)
    assert call(f"{llm.url}/calls")[1]["most_at_work"] == 2


def test_task_with_a_failed_agent_is_answered_from_the_other_agents_answers(
    orchestrator: Make, llm: StandIn, tmp_path: Path
):
    llm.control(reject="the thinker")
    one = orchestrator(MLX_API_URL=llm.url, VESTAL_AGENTS_FILE=crew(tmp_path)).start()
    task = one.finished(one.submit("try", agents=["reader", "thinker", "critic"]))
    assert [bool(a["error"]) for a in task["answers"]] == [False, True, False]
    assert "thinker could not answer" in task["notes"][0]
    assert "thinker wrote" not in llm.calls("/api/chat")[-1]["messages"][1]["content"]
    alone = one.finished(one.submit("try again", agents=["thinker"]), "failed")
    assert "this prompt is not taken" in alone["error"]


def test_task_that_is_cancelled_stops_all_its_agents(orchestrator: Make, llm: StandIn, tmp_path: Path):
    one = orchestrator(
        MLX_API_URL=llm.url, VESTAL_AGENTS_FILE=crew(tmp_path), SMART_WORKER_MAX_CONCURRENT="2"
    ).start()
    one.cycle()
    llm.control(delay_s=3600)
    stuck = one.submit("stuck", agents=["reader", "thinker", "critic"])
    wait_until("two are asked", lambda: len(llm.calls("/api/chat")) == 2)
    llm.control(delay_s=0)
    assert one.ask(f"/tasks/{stuck}", method="DELETE")[0] == 200
    assert one.finished(one.submit("next", agents=["lead"]))["answer"]
    assert one.task(stuck)["state"] == "cancelled"
    assert not of(llm, "the critic"), "an agent of a cancelled task was asked"


@pytest.mark.parametrize("command", ["run", "nightly"])
def test_orchestrator_with_a_broken_agents_file_exits_with_78_and_one_sentence(
    orchestrator: Make, tmp_path: Path, command: str
):
    path = tmp_path / "agents.yaml"
    path.write_text("agents:\n  reader:\n    promt: Read.\n")
    one = orchestrator(VESTAL_AGENTS_FILE=str(path))
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", command],
        env=one.env,
        cwd=one.repo,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == (
        f"orchestrator: {path}:3: agents.reader.promt is an unknown key; there are: "
        "knowledge, model, prompt, role, tools.\n"
    )


def test_tasks_that_wait_for_a_missing_model_do_not_block_other_tasks(
    orchestrator: Make, llm: StandIn, tmp_path: Path
):
    """Before, with two calls at once, two waiting tasks blocked all others."""
    path = tmp_path / "agents.yaml"
    path.write_text("agents: {big: {prompt: Think., model: 'not-here:70b'}}")
    one = orchestrator(
        MLX_API_URL=llm.url, VESTAL_AGENTS_FILE=str(path), SMART_WORKER_MAX_CONCURRENT="2"
    ).start()
    waiting = [one.submit(f"think hard, {number}", agents=["big"]) for number in range(3)]

    def waits(task: str) -> bool:
        return "no healthy backend has not-here:70b" in str(one.task(task)["steps"])

    wait_until("they say what they wait for", lambda: all(map(waits, waiting)))
    assert one.finished(one.submit("quick", agents=["lead"]))["answer"]
    assert {one.task(task)["state"] for task in waiting} == {"running"}


def test_task_with_a_long_goal_sends_only_prompts_that_fit_the_models_small_context(
    orchestrator: Make, llm: StandIn, tmp_path: Path
):
    llm.control(context_length=700)
    one = orchestrator(MLX_API_URL=llm.url, VESTAL_AGENTS_FILE=crew(tmp_path)).start()
    one.finished(one.submit("a long goal, " * 1200))
    chats = llm.calls("/api/chat")
    assert len(chats) == 5
    for chat in chats:
        prompt = sum(budget.tokens(m["content"]) for m in chat["messages"])
        assert prompt + chat["options"]["num_predict"] <= 700


@pytest.mark.parametrize("seed", [1])
def test_task_of_an_orchestrator_killed_at_random_points_repeats_no_finished_step(
    orchestrator: Make, llm: StandIn, tmp_path: Path, seed: int
):
    """No finished step is repeated; only a call that was in flight at a kill is made once more."""
    dice = random.Random(seed)
    llm.control(delay_s=0.3, say={PLANS: "critic: a\nreader: b\nthinker: c"})
    one = orchestrator(MLX_API_URL=llm.url, VESTAL_AGENTS_FILE=crew(tmp_path)).start()
    task_id = one.submit("survive all of it", idempotency_key="once")
    restarts: list[float] = []
    kept: dict[str, float] = {}
    for _ in range(4):
        measure = asked_so_far if dice.random() < 0.5 else done_so_far
        wait_for_more(measure, one, llm, task_id)
        kept |= {s["name"]: s["finished_at"] for s in one.task(task_id)["steps"] if s["state"] == "done"}
        assert one.child
        one.child.end(signal.SIGKILL)
        restarts.append(time.time())  # not before: a call made just before the kill may arrive after it
        one.start()
    llm.control(delay_s=0)
    task = one.finished(task_id)

    assert names(task)[0] == "plan" and names(task)[-1] == "join"
    assert len(task["answers"]) == 3
    assert one.submit("survive all of it", idempotency_key="once") == task_id
    ends = {step["name"]: step["finished_at"] for step in task["steps"]}
    assert kept.items() <= ends.items()
    asked: dict[str, list[float]] = {}
    for one_call in raw_calls(llm):
        asked.setdefault(step_of(one_call["body"]), []).append(one_call["at"])
    assert set(asked) == {"plan", "join", "answer:reader", "answer:thinker", "answer:critic"}
    for step, times in asked.items():
        # DBOS leaves out what is less than a millisecond.
        assert int(times[-1] * 1000) <= round(ends[step] * 1000), f"{step} was asked after its end"
        for first, second in pairwise(times):
            assert any(first <= at < second for at in restarts), f"{step} was asked twice without a kill"
    assert Counter(names(task)).most_common(1)[0][1] == 1


def asked_so_far(one: Orchestrator, llm: StandIn, task_id: str) -> int:
    return len(llm.calls("/api/chat"))


def done_so_far(one: Orchestrator, llm: StandIn, task_id: str) -> int:
    return len([s for s in one.task(task_id)["steps"] if s["state"] == "done"])


def wait_for_more(measure: Callable[..., int], one: Orchestrator, llm: StandIn, task_id: str) -> None:
    """Wait until `measure` has grown, or the task is done."""
    begun = measure(one, llm, task_id)
    wait_until(
        f"{measure.__name__} grows",
        lambda: measure(one, llm, task_id) > begun or one.task(task_id)["state"] == "done",
    )


def raw_calls(llm: StandIn) -> list[dict]:
    return [c for c in call(f"{llm.url}/calls")[1]["calls"] if c["path"] == "/api/chat"]


def step_of(body: dict) -> str:
    system = body["messages"][0]["content"]
    if PLANS in system:
        return "plan"
    return (
        "join"
        if "Join the drafts" in system
        else f"answer:{system.removeprefix('You are the ').partition('.')[0]}"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="needs a second loopback address")
def test_two_model_hosts_share_the_calls_and_one_takes_all_when_the_other_dies(
    orchestrator: Make, children: Start, free_port: Callable[[], int], tmp_path: Path
):
    here, port = children("fake_llm.py"), free_port()
    there = children("fake_llm.py", "--bind", "127.0.0.2", port=port)  # stands for another machine
    there.url = f"http://127.0.0.2:{port}"
    one = orchestrator(
        MLX_API_URL=f"{here.url},{there.url}", VESTAL_AGENTS_FILE=crew(tmp_path), VESTAL_LLM_API_KEY="k"
    ).start()
    one.cycle()
    for llm in (here, there):
        llm.control(hold=True)
    shared = one.submit("shared", agents=["critic", "thinker"])
    wait_until("each has a call", lambda: all(len(llm.calls("/api/chat")) == 1 for llm in (here, there)))
    for llm in (here, there):
        llm.control(hold=False)
    one.finished(shared)
    before = len(there.calls("/api/chat"))
    here.end()
    one.finished(one.submit("and now alone", agents=["reader", "thinker"]))
    assert len(there.calls("/api/chat")) >= before + 3


def test_model_host_that_gave_three_empty_answers_is_not_asked_again(
    orchestrator: Make, children: Start, tmp_path: Path
):
    """With a dead Metal context a server answers 200 without text for hours, and passes all health checks."""
    ill, well = children("fake_llm.py"), children("fake_llm.py")
    ill.control(mode="empty")
    one = orchestrator(MLX_API_URL=ill.url, OLLAMA_BASE_URL=well.url).start()
    one.cycle()
    assert one.finished(one.submit("who answers?"))["answer"]
    assert len(ill.calls("/api/chat")) == 3
    assert len(well.calls("/api/chat")) == 1
    opened = one.events("breaker_opened")
    assert opened[0]["backend"] == "mlx" and opened[0]["failures"] == 3
    assert 'backend_breaker_open{backend="mlx"} 1' in one.ask("/metrics")[1]


@pytest.mark.parametrize("size", [70_000, 10_000_000])
def test_task_with_a_goal_of_megabytes_is_refused_as_too_large(shared: Orchestrator, size: int):
    before = shared.tasks()
    status, answer = shared.ask("/tasks", {"goal": "x" * size})
    assert (status, answer["error"]["code"]) == (413, "too_large")
    assert shared.tasks() == before
