"""Two worker containers and the orchestrator share a real Postgres; one worker is killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Models
from tests.e2e.containers import container_id, docker
from tests.services.real_postgres import RealPostgres
from vestal.platform.network import bridge_address

TASKS = 12
DONE_WITHIN_S = 180.0  # the orchestrator's component tests measure how soon others take the tasks over

pytestmark = [pytest.mark.model, pytest.mark.docker, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def database(free_port: Callable[[], int], models: Models) -> Iterator[str]:
    """Run a Postgres that the containers reach over the bridge."""
    with RealPostgres(free_port(), f"127.0.0.1,{bridge_address()}") as postgres:
        yield postgres.new_database()


@pytest.fixture(scope="module")
def stack(
    make_stack: Callable,
    models: Models,
    small_models_dir: Path,
    database: str,
    tmp_path_factory: pytest.TempPathFactory,
):
    knowledge: Path = tmp_path_factory.mktemp("knowledge")
    knowledge.chmod(0o755)  # the container's user is another
    (knowledge / "birds.md").write_text("# Birds\n\nThe heron eats fish at dawn.\n")
    stack = make_stack(
        VESTAL_MODELS_DIR=str(small_models_dir),  # nobody asks them: `models` answers
        VESTAL_ORCHESTRATOR__MODE="docker",
        VESTAL_ORCHESTRATOR__MLX_API_URL=models.from_this_machine,
        VESTAL_ORCHESTRATOR__KNOWLEDGE=str(knowledge),
        VESTAL_ORCHESTRATOR__WORKERS="2",
        VESTAL_ORCHESTRATOR__MAX_CONCURRENT="1",  # each begins 4 tasks at the most: there are some for all
        VESTAL_DATABASE_URL=database,
    )
    up = stack.vestal("up", timeout_s=500)
    assert up.returncode == 0, up.stdout + up.stderr + stack.tails()
    stack.project = stack.service("docker")["project"]
    return stack


def workers(stack) -> list[str]:
    return container_id(stack, "worker").split()


def worked_on(name: str) -> set[str]:
    return {event["task"] for event in events(name, "step_started")}


def events(name: str, kind: str) -> list[dict[str, Any]]:
    """Return the events with this name in a container's log."""
    lines = [line for line in docker("logs", name).splitlines() if line.startswith("{")]
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def test_worker_containers_are_healthy_and_a_killed_one_is_restarted_and_its_tasks_are_done(
    stack, models: Models
):
    one, other = workers(stack)
    healthy = "{{.State.Health.Status}}"
    for name in (one, other):
        stack.until(lambda n=name: docker("inspect", "-f", healthy, n) == "healthy", "a healthy worker")
    known = lambda: stack.orchestrator("/knowledge/search", {"query": "heron"}).body["results"]  # noqa: E731
    stack.until(known, "the knowledge is there")
    models.control(delay_s=1.0)
    tasks = [
        stack.orchestrator("/tasks", {"goal": f"what does heron {n} eat?", "agents": ["lead"]}).body["id"]
        for n in range(TASKS)
    ]
    stack.until(lambda: worked_on(one), "the first worker is at work")
    docker("kill", one)  # after which Docker itself does not restart it

    states = lambda: [stack.orchestrator(f"/tasks/{task}").body["state"] for task in tasks]  # noqa: E731
    stack.until(lambda: set(states()) == {"done"}, "all done", DONE_WITHIN_S)

    sources = stack.orchestrator(f"/tasks/{tasks[0]}").body["sources"]
    assert [source["file"] for source in sources] == ["birds.md"]
    stack.until(lambda: docker("inspect", "-f", healthy, one) == "healthy", "the killed worker is back")
    for n in range(TASKS):
        asked = [call for call in models.calls("/api/chat") if f"heron {n} eat" in str(call["body"])]
        assert 1 <= len(asked) <= 2


def test_up_command_with_fewer_workers_removes_the_others_and_the_down_command_removes_all_workers(stack):
    stack.env["VESTAL_ORCHESTRATOR__WORKERS"] = "1"
    assert stack.vestal("up", timeout_s=300).returncode == 0
    stack.until(lambda: len(workers(stack)) == 1, "one worker")
    assert stack.vestal("down", timeout_s=300).returncode == 0
    assert workers(stack) == []
