"""A real agent and a real orchestrator, which asks only once for a service that a person stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.component.host_agent.conftest import AgentUnderTest
from tests.component.orchestrator.conftest import Orchestrator, StandIn, phase, wait_until

SAID = "mlx: it was stopped by hand on the host (`vestal recover --reset` starts it)"


@pytest.fixture
def agent(home: Path, free_port: Callable[[], int]) -> Iterator[AgentUnderTest]:
    one = AgentUnderTest(home, free_port(), free_port()).start()
    yield one
    assert one.process
    one.process.terminate()
    one.process.communicate(timeout=20)


@pytest.fixture
def ollama(repo: Path, tmp_path: Path, free_port: Callable[[], int]) -> Iterator[StandIn]:
    one = StandIn(repo, "fake_llm.py", free_port(), tmp_path)
    yield one
    one.end()


@pytest.fixture
def orchestrator(
    agent: AgentUnderTest, ollama: StandIn, repo: Path, tmp_path: Path, free_port: Callable[[], int]
) -> Iterator[Orchestrator]:
    settings = {
        "MLX_API_URL": f"http://127.0.0.1:{agent.mlx_port}",
        "OLLAMA_BASE_URL": ollama.url,
        "RECOVERY_WEBHOOK_URL": f"http://127.0.0.1:{agent.port}/recover",
        "VESTAL_TOKEN": (agent.home / "token").read_text().strip(),
        "ORCHESTRATOR_CYCLE_INTERVAL": "0.3",
        "ORCHESTRATOR_HEALTH_MONITOR_INTERVAL": "0.2",
    }
    one = Orchestrator(repo, tmp_path, free_port(), **settings)
    yield one
    if one.child:
        one.child.end()


def test_mlx_server_stopped_by_hand_is_posted_to_the_webhook_once_and_named_in_each_cycle(
    agent: AgentUnderTest, orchestrator: Orchestrator
):
    assert agent.ask("/services/mlx_server/stop", {})[0] == 202
    agent.until(lambda: agent.status()["services"]["mlx_server"]["state"] == "stopped", "it is stopped")
    one = orchestrator.start()
    wait_until("ten cycles", lambda: len(one.events("cycle_finished")) >= 10)
    # The first of them or the health monitor before it has posted; the others say that it is done.
    for cycle in one.ask("/cycles?limit=500")[1]["cycles"]:
        assert SAID in phase(cycle, "health")["webhook"]
    assert "posted already" in phase(one.cycle(), "health")["webhook"]

    posts = one.events("recovery_requested")
    assert len(posts) == 1
    assert posts[0]["services"] == {"mlx": "manual_stop"}
    assert posts[0]["next_post_in_s"] > 290
    assert agent.status()["services"]["mlx_server"]["state"] == "stopped"


def test_mlx_server_stopped_by_hand_opens_no_incident_at_the_next_recovery_pass(agent: AgentUnderTest):
    """The pass took the engine, which is stopped with its gateway, for a fault, and opened an incident."""
    assert agent.ask("/services/mlx_server/stop", {})[0] == 202
    agent.until(lambda: agent.status()["services"]["mlx_server"]["state"] == "stopped", "it is stopped")
    run = agent.ask("/recover", {"mlx": False})[1]["run_id"]
    agent.until(lambda: agent.ask(f"/recover/{run}")[1]["state"] == "done", "the pass has ended")
    report = agent.ask(f"/recover/{run}")[1]
    assert {line for line in report["found"] if "mlx_" in line} == {
        "mlx_server: was stopped by hand",
        "mlx_engine: was stopped by hand",
    }
    found = [each for each in agent.ask("/incidents")[1]["incidents"] if "mlx_engine" in each["services"]]
    assert found == []


def test_recover_route_reports_an_engine_with_an_open_breaker_and_reset_route_restarts_its_gateway(
    agent: AgentUnderTest,
):
    before = agent.gateway()
    engine = {"pid": None, "state": "open", "detail": "five starts failed"}
    control = agent.home / "fake_gateway.json"
    control.write_text(json.dumps({"status": "failed", "engine": engine}))
    ask = {"mlx": False}
    agent.until(lambda: agent.ask("/recover", ask)[1]["services"] == {"mlx": "open"}, "the answer names it")
    control.write_text(json.dumps({"status": "ok", "engine": engine}))
    assert agent.ask("/recover/reset", {})[0] == 202
    agent.until(lambda: agent.gateway() != before, "the gateway was begun anew")
