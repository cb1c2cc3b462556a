"""Tasks in the orchestrator's container while the container is killed, also by the kernel for its memory.

By hand for longer: `VESTAL_TEST_TASKS=500 VESTAL_TEST_KILLS=40 VESTAL_TEST_SEED=2`. Each kill's kind and
point depend on the seed and on how far the work is.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Models
from tests.e2e.containers import container, docker, kill_its_process, overrun

TASKS = int(os.environ.get("VESTAL_TEST_TASKS", "50"))
KILLS = int(os.environ.get("VESTAL_TEST_KILLS", "6"))
SEED = int(os.environ.get("VESTAL_TEST_SEED", "1"))
SIDE_BY_SIDE = 4
CALL_S = 0.3
FIRST_CALL_AFTER_S = 1.0
"""A container that has just started calls no model sooner. What the stand-in reads until then was sent before
the kill: it may have waited for a core.
"""

pytestmark = [pytest.mark.model, pytest.mark.docker, pytest.mark.timeout(300 + 10 * KILLS + 3 * TASKS)]

AGENTS = """
agents:
  reader: {role: a careful reader, prompt: Read., tools: []}
  critic: {role: a critic, prompt: Doubt., tools: []}
"""
ROLES = {
    "Say which agents": "plan",
    "Join the drafts": "join",
    "reader": "answer:reader",
    "critic": "answer:critic",
}
KILL_METHODS: dict[str, Callable[[str], object]] = {  # the reason that the agent must report -> the kill
    "out_of_memory": overrun,
    "unknown_kill": kill_its_process,
    "killed_by_request": lambda name: docker("kill", name),
}
Step = tuple[str, str]  # task, name of the step


@dataclass
class Run:
    """The record of one run: the container's kills, and the state of its tasks before each kill."""

    ids: dict[str, str] = field(default_factory=dict)  # a goal's number -> its task
    reasons: list[str] = field(default_factory=list)
    kills: list[tuple[float, float]] = field(default_factory=list)  # when it ended, and when it started again
    recorded: dict[Step, float] = field(default_factory=dict)  # finished steps seen -> when


def calls(models: Models) -> dict[Step, list[float]]:
    """Return the times at which each step called its model, by the number of the task's goal."""
    found: dict[Step, list[float]] = defaultdict(list)
    for call in models.calls("/api/chat"):
        system, asked = (message["content"] for message in call["body"]["messages"])
        step = next(name for words, name in ROLES.items() if words in system)
        found[re.findall(r"goal (\d+)", asked)[-1], step].append(call["at"])
    return found


@pytest.fixture(scope="module")
def stack(
    make_stack: Callable, models: Models, small_models_dir: Path, tmp_path_factory: pytest.TempPathFactory
):
    models.control(delay_s=CALL_S, say={"Say which agents": "reader: read it\ncritic: doubt it"})
    files = tmp_path_factory.mktemp("agents")
    (files / "agents.yaml").write_text(AGENTS)
    (files / "knowledge").mkdir()
    stack = make_stack(
        VESTAL_MODELS_DIR=str(small_models_dir),  # nobody asks them: `models` answers
        VESTAL_ORCHESTRATOR__MODE="docker",
        VESTAL_ORCHESTRATOR__MEM_LIMIT="512m",
        VESTAL_ORCHESTRATOR__MAX_CONCURRENT=str(SIDE_BY_SIDE),
        VESTAL_ORCHESTRATOR__AGENTS=str(files / "agents.yaml"),
        VESTAL_ORCHESTRATOR__KNOWLEDGE=str(files / "knowledge"),
        VESTAL_ORCHESTRATOR__MLX_API_URL=models.from_this_machine,
    )
    up = stack.vestal("up", timeout_s=500)
    assert up.returncode == 0, up.stdout + up.stderr + stack.tails()
    stack.project = stack.service("docker")["project"]
    return stack


@pytest.fixture(scope="module")
def run(stack, models: Models) -> Run:
    """Run all tasks to their end, with all kills in between."""
    print(f"seed {SEED}: {TASKS} tasks, {KILLS} kills")
    draw = random.Random(SEED)
    run = Run({f"{number:04}": _submitted(stack, f"{number:04}") for number in range(TASKS)})
    kinds = list(itertools.islice(itertools.cycle(KILL_METHODS), KILLS))
    draw.shuffle(kinds)
    steps = TASKS * 3.5
    for number, kind in enumerate(kinds):
        point = int(steps * (number + draw.uniform(0.1, 0.9)) / (KILLS + 1))
        stack.until(lambda at=point: _asked(models) >= at, f"{point} calls", 240)
        time.sleep(draw.uniform(0, CALL_S))  # anywhere in a step
        _note_recorded(stack, run)
        _kill(stack, kind, run)
    all_done = lambda: {task["state"] for task in _tasks(stack)} <= {"done", "failed"}  # noqa: E731
    stack.until(all_done, "all tasks end", 240 + TASKS)
    return run


def test_all_tasks_end_done_and_none_is_duplicated_although_containers_are_killed(stack, run: Run):
    tasks = _tasks(stack)
    assert len(tasks) == TASKS and {task["id"] for task in tasks} == set(run.ids.values())
    failed = [task for task in tasks if task["state"] != "done"]
    assert not failed, [stack.orchestrator(f"/tasks/{task['id']}").body for task in failed]
    again = {number: _submitted(stack, number) for number in run.ids}
    assert again == run.ids, "the same key is the same task, also for one accepted before a kill"


def test_task_steps_that_finished_before_a_container_kill_are_not_called_again(
    stack, run: Run, models: Models
):
    recorded = {step: at for number in run.ids for step, at in _steps(stack, run, number).items()}
    assert run.recorded.items() <= recorded.items(), "what was recorded before a kill stayed as it was"
    asked = calls(models)
    assert {step for step in recorded if not step[1].startswith("retrieve")} == set(asked)
    late = {step: asked[step] for step in asked if max(asked[step]) > recorded[step]}
    assert not late, f"called after they were recorded as finished: {late}"
    for step, times in asked.items():
        for one, next_one in itertools.pairwise(sorted(times)):
            assert any(
                one <= started + FIRST_CALL_AFTER_S and ended <= next_one for ended, started in run.kills
            ), f"{step} twice without a kill between: {times}; the kills: {run.kills}"


def test_each_container_death_is_explained_from_its_evidence(stack, run: Run):
    died = stack.until(lambda: len(found := _deaths(stack)) >= KILLS and found, "all deaths are reported")
    assert [entry["fields"]["exit_code"] for entry in died] == [137] * KILLS
    assert [entry["fields"]["reason"] for entry in died] == run.reasons


def _deaths(stack) -> list[dict[str, Any]]:
    return [entry for entry in stack.journal("container_died") if entry["component"] == "orchestrator"]


def _submitted(stack, number: str) -> str:
    agents = (
        {} if int(number) % 2 else {"agents": ["reader", "critic"]}
    )  # every other one is planned by the lead
    body = {"goal": f"goal {number}", "idempotency_key": f"key {number}", **agents}
    answer = stack.orchestrator("/tasks", body)
    assert answer.status == 201, answer
    return answer.body["id"]


def _asked(models: Models) -> int:
    """Return the steps that called their model at least once."""
    return len(calls(models))


def _tasks(stack) -> list[dict[str, Any]]:
    return stack.orchestrator("/tasks?limit=500").body["tasks"]


def _note_recorded(stack, run: Run) -> None:
    numbers = {task_id: number for number, task_id in run.ids.items()}
    begun = [task for task in _tasks(stack) if task["state"] == "running"]
    for task in begun:
        run.recorded.update(_steps(stack, run, numbers[task["id"]]))


def _steps(stack, run: Run, number: str) -> dict[Step, float]:
    steps = stack.orchestrator(f"/tasks/{run.ids[number]}").body["steps"]
    return {(number, step["name"]): step["finished_at"] for step in steps if step["state"] == "done"}


def _kill(stack, kind: str, run: Run) -> None:
    """Kill the container once, and wait until it runs and answers again."""
    before = container(stack, "orchestrator")
    KILL_METHODS[kind](before["Id"])

    def again() -> Any:
        state = container(stack, "orchestrator")["State"]
        return state if state["Running"] and state["StartedAt"] != before["State"]["StartedAt"] else None

    state = stack.until(again, f"it was brought back after {kind}", 240)
    run.kills.append((_time(state["FinishedAt"]), _time(state["StartedAt"])))
    run.reasons.append(kind)
    stack.until(lambda: stack.orchestrator("/health").status == 200, "it answers", 240)


def _time(text: str) -> float:
    """Return a time of `docker inspect`, which has up to nine decimals, in seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()
