"""`vestal up` with a real Docker engine: limits, exit 137, and a container that calls the host for help."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.containers import container, container_id, docker, overrun

pytestmark = [pytest.mark.model, pytest.mark.docker, pytest.mark.timeout(600)]

LIMIT_BYTES = 512 * 1024**2


@pytest.fixture(scope="module")
def stack(
    make_stack: Callable,
    docker_engine: None,
    small_models_dir: Path,
    few_docs: Path,
    tmp_path_factory: pytest.TempPathFactory,
):
    notes = tmp_path_factory.mktemp("no$tes")
    notes.chmod(0o755)  # the containers' user is another
    (notes / "birds.md").write_text("# Birds\n\nThe heron eats fish at dawn.\n")
    stack = make_stack(
        VESTAL_ORCHESTRATOR__KNOWLEDGE=json.dumps({"docs": str(few_docs), "notes": str(notes)}),
        VESTAL_MODELS_DIR=str(small_models_dir),
        VESTAL_ORCHESTRATOR__MODE="docker",
        VESTAL_ORCHESTRATOR__MEM_LIMIT="512m",
        VESTAL_ORCHESTRATOR__CYCLE_INTERVAL_S="5",
        ORCHESTRATOR_HEALTH_MONITOR_INTERVAL="3",
        # Only the webhook may heal here: the agent's own probes and passes are too slow to be the reason.
        VESTAL_SUPERVISION__HEALTH_INTERVAL_S="900",
        VESTAL_AGENT__MONITOR_INTERVAL_S="900",
        VESTAL_AGENT__RECOVERY_INTERVAL_S="900",
    )
    up = stack.vestal("up", timeout_s=500)
    assert up.returncode == 0, up.stdout + up.stderr + stack.tails()
    stack.project = stack.service("docker")["project"]
    return stack


@pytest.mark.parametrize("service", ["orchestrator", "nightly"])
def test_container_runs_with_its_memory_limit_and_not_as_root(stack, service: str):
    found = container(stack, service)
    assert found["HostConfig"]["Memory"] == LIMIT_BYTES
    assert found["HostConfig"]["MemorySwap"] == LIMIT_BYTES, "else it may take as much again in swap"
    assert found["Config"]["User"] not in ("", "root", "0", "0:0")
    healthy = lambda: container(stack, service)["State"]["Health"]["Status"] == "healthy"  # noqa: E731
    stack.until(healthy, f"{service} is healthy", 240)


def test_orchestrator_container_publishes_its_port_on_loopback_only(stack):
    published = container(stack, "orchestrator")["NetworkSettings"]["Ports"]["8088/tcp"]
    assert {binding["HostIp"] for binding in published} == {"127.0.0.1"}


def test_orchestrator_container_reaches_the_model_and_finishes_a_task(stack):
    task = stack.orchestrator("/tasks", {"goal": "Say hello to the reader."})
    assert task.status == 201, task
    path = f"/tasks/{task.body['id']}"
    done = stack.until(
        lambda: (t := stack.orchestrator(path).body)["state"] in ("done", "failed") and t,
        "the task ends",
        240,  # it computes while all documents are indexed for the first time
    )
    assert done["state"] == "done" and done["answer"].strip(), done


def test_orchestrator_container_embeds_the_docs_and_later_cycles_embed_nothing(stack):
    stack.until(
        lambda: stack.orchestrator("/knowledge/search", {"query": "why two processes", "k": 3}).body[
            "results"
        ],
        "the docs are embedded",
        240,
    )
    chunks = stack.until(lambda: _knowledge_idle(stack), "a cycle with nothing to embed", 240)
    assert chunks


def test_knowledge_folder_of_an_agent_is_mounted_read_only_and_searched_separately(stack):
    for service in ("orchestrator", "nightly"):
        mounts = {m["Destination"]: m["RW"] for m in container(stack, service)["Mounts"]}
        assert mounts["/knowledge/docs"] is mounts["/knowledge/notes"] is False
    query = {"query": "what does the heron eat", "agent": "notes", "k": 3}
    hits = stack.until(
        lambda: stack.orchestrator("/knowledge/search", query).body["results"], "the notes are known", 240
    )
    assert [(hit["agent"], hit["file"]) for hit in hits] == [("notes", "birds.md")]


def _knowledge_idle(stack) -> bool:
    cycles = stack.orchestrator("/cycles?limit=1").body["cycles"]
    return "0 changed, 0 deleted, 0 chunks embedded" in json.dumps(cycles[0])


def test_killed_engine_and_hung_gateway_are_recovered_at_the_request_of_the_orchestrator_container(stack):
    gateway, engine = stack.pid("mlx_server"), stack.pid("mlx_engine")
    before = len(stack.journal("recovery_requested"))
    os.kill(gateway, signal.SIGSTOP)  # hung: it holds the port and answers nobody
    os.kill(engine, signal.SIGKILL)
    stack.until(lambda: stack.pid("mlx_server") != gateway, "the hung gateway was replaced", 240)
    stack.until(
        lambda: stack.mlx("/health").body["engine"]["pid"] not in (None, engine), "with an engine of its own"
    )
    asked = stack.journal("recovery_requested")[before:]
    assert asked, "nobody asked"
    assert all(entry["fields"]["remote"] != "127.0.0.1" for entry in asked), asked
    stack.until_healthy()


def test_oom_killed_container_is_restarted_and_the_journal_names_its_memory_limit_as_the_cause(stack):
    found = container(stack, "orchestrator")
    restarts = found["RestartCount"]
    # Its main process is put under a limit it already exceeds: the kernel's own OOM kill, exit code 137.
    overrun(found["Id"])
    back = lambda: container(stack, "orchestrator")["RestartCount"] > restarts  # noqa: E731
    stack.until(back, "Docker or the agent restarted it", 240)
    died = stack.until(lambda: stack.journal("container_died"), "the death is in the journal")[-1]
    assert died["fields"]["exit_code"] == 137
    assert "512" in died["cause"] and "limit" in died["cause"], died
    stack.until_healthy()


def test_container_killed_by_hand_is_restarted_by_the_agent(stack):
    """Docker's restart policy takes `docker kill` for a person's wish, and does not restart the container."""
    killed = container_id(stack, "nightly")
    docker("kill", killed)
    stack.until(lambda: container(stack, "nightly")["State"]["Running"], "the agent brought it up", 240)
    died = stack.until(
        lambda: [e for e in stack.journal("container_died") if e["component"] == "nightly"],
        "the death is reported",
    )
    assert "request to the Docker engine" in died[-1]["cause"]
    stack.until_healthy()


def test_container_that_was_removed_is_brought_up_by_a_recovery_pass(stack):
    missing = container_id(stack, "nightly")
    docker("rm", "-f", missing)
    assert stack.agent("/recover", {"mlx": True, "ollama": True}).status == 202
    stack.until(lambda: container_id(stack, "nightly") not in ("", missing), "there is another one", 240)
    stack.until_healthy()
    assert any(entry["component"] == "nightly" for entry in stack.journal("remedy_applied"))


def test_down_command_leaves_no_container_and_no_network_and_no_process(stack):
    down = stack.vestal("down")
    assert down.returncode == 0, down.stdout + down.stderr
    label = f"label=com.docker.compose.project={stack.project}"
    assert docker("ps", "-aq", "--filter", label) == ""
    assert docker("network", "ls", "-q", "--filter", label) == ""
    assert stack.listening() == []
    assert stack.processes() == []
