"""The agent as a process: it restarts its services, and adopts those that outlived an earlier agent."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import psutil

from tests.component.host_agent.conftest import REPO, suspend
from tests.processes import has_ended
from vestal.supervision import State, write_pid_file
from vestal.supervision.processes.identity import identify

WAITS = REPO / "tests" / "children" / "waits.py"
MOST_PASSES = 10  # on a busy machine, a single one may take seconds


def test_killed_gateway_is_restarted_and_recorded_in_the_journal(agent):
    first = agent.start().gateway()
    os.kill(first, signal.SIGKILL)
    agent.until(lambda: agent.gateway() != first, "another gateway")
    row = agent.status()["services"]["mlx_server"]
    assert row["restart_count"] == 1
    assert any(e["event"] == "child_exited" and e["component"] == "mlx_server" for e in agent.journal())


def test_gateway_of_a_killed_agent_is_adopted_by_the_next_agent_and_restarted_when_it_dies(agent):
    gateway = agent.start().gateway()
    events = len(agent.journal())
    agent.kill()
    assert psutil.pid_exists(gateway)
    assert agent.start().gateway() == gateway
    # The journal has every event after the kill, and goes on.
    seqs = [entry["seq"] for entry in agent.journal()]
    assert seqs == sorted(set(seqs))
    assert len(seqs) > events
    _, started = [entry for entry in agent.journal() if entry["event"] == "agent_started"]
    assert 0 <= started["ts"] - started["fields"]["last_alive_at"] < 60
    os.kill(gateway, signal.SIGKILL)
    agent.until(lambda: agent.gateway() != gateway, "the adopted gateway was restarted")


def test_connection_made_after_a_gateway_was_killed_is_answered_by_the_next_gateway(agent):
    """Earlier, connections were refused for 1.2 s after the gateway was killed."""
    first = agent.start().gateway()
    (agent.home / "fake_gateway.json").write_text(json.dumps({"start_s": 1.0}))
    os.kill(first, signal.SIGKILL)
    statuses: list[int] = []
    began = time.monotonic()
    while not statuses or time.monotonic() - began < 1.5:
        with urllib.request.urlopen(f"http://127.0.0.1:{agent.mlx_port}/health", timeout=60) as answer:
            statuses.append(answer.status)
    assert set(statuses) == {200}
    assert agent.gateway() != first


def test_gateway_stopped_by_hand_refuses_connections_at_once(agent):
    agent.start().gateway()
    assert agent.ask("/services/mlx_server/stop", {})[0] == 202

    def is_refused() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", agent.mlx_port)) == errno.ECONNREFUSED

    agent.until(is_refused, "connections are refused", 15)
    assert agent.ask("/services/mlx_server/start", {})[0] == 202
    assert agent.gateway()
    assert not is_refused()


def test_second_agent_names_the_first_and_exits_with_75(agent):
    agent.start()
    second = agent.launch()
    _, output = second.communicate(timeout=60)
    assert second.returncode == 75
    assert f"PID {agent.process.pid}" in output.splitlines()[-1]


def test_agent_whose_port_is_in_use_names_the_holder_and_starts_nothing(agent):
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", agent.port))
        held.listen()
        process = agent.launch()
        _, output = process.communicate(timeout=60)
    assert process.returncode == 75
    last = output.splitlines()[-1]
    assert f"port {agent.port} is held by" in last
    assert f"PID {os.getpid()}" in last
    assert "VESTAL_AGENT_PORT" in last
    assert agent.processes() == []


def test_agent_that_gets_sigterm_stops_its_gateway_and_leaves_no_pid_file(agent):
    gateway = agent.start().gateway()
    agent.process.send_signal(signal.SIGTERM)
    agent.process.communicate(timeout=60)
    assert agent.process.returncode == 0
    assert has_ended(gateway)
    assert list((agent.home / "run").glob("*.json")) == []


def test_agent_that_stops_while_its_gateway_drains_refuses_with_503_what_would_start_services(agent):
    """POST /recover once started again what had just been stopped, and that outlived the agent."""
    agent.start()
    drains = agent.home / "fake_gateway.json"
    drains.write_text(json.dumps({"stop_s": 900}))
    agent.process.send_signal(signal.SIGTERM)
    code, answer = agent.until(lambda: (a := agent.ask("/recover", {}))[0] == 503 and a, "it refuses")
    assert answer["error"]["code"] == "agent_stopping"
    assert agent.ask("/recover/reset", {})[0] == 503
    assert agent.ask("/services/mlx_server/start", {})[0] == 503
    drains.unlink()  # the agent would kill it after some 20 s
    assert agent.process.wait(timeout=60) == 0
    assert agent.processes() == []


def test_recovery_pass_replaces_a_hung_gateway_with_a_new_process(agent):
    first = agent.start().gateway()
    suspend(first)
    report = agent.recover()
    assert report["healthy"], report
    assert "does not answer" in report["found"][0]
    assert "it is healthy now" in report["done"][0]
    assert agent.gateway() != first
    assert has_ended(first)


def test_silent_gateway_that_uses_cpu_is_busy_and_not_restarted(agent):
    """Earlier, a body of 30 MB kept the gateway silent for 4 s, and a recovery pass ended the gateway."""
    first = agent.start().gateway()
    (agent.home / "fake_gateway.json").write_text(json.dumps({"computes": True}))
    report = agent.recover()
    assert (report["healthy"], report["found"], report["done"], report["left"]) == (True, [], [], [])
    services = agent.status()["services"]
    assert services["mlx_server"]["state"] == "busy"
    assert "of CPU time" in services["mlx_server"]["detail"]
    assert services["mlx_engine"]["state"] == "ready"
    assert "last reported" in services["mlx_engine"]["detail"]
    (agent.home / "fake_gateway.json").unlink()
    assert agent.recover()["healthy"]
    assert agent.gateway() == first
    assert any(entry["event"] == "health_overdue" for entry in agent.journal())


def test_silent_gateway_that_uses_cpu_beyond_the_time_limit_is_replaced(agent):
    agent.env["VESTAL_SUPERVISION__BUSY_LIMIT_S"] = "5"
    first = agent.start().gateway()
    (agent.home / "fake_gateway.json").write_text(json.dumps({"computes": True}))
    assert agent.recover()["healthy"], "it works, so it is not hung yet"

    def found() -> list[str]:
        """Return what the next pass finds, as soon as it has found something or ends."""
        run_id = agent.begin_pass()
        report = lambda: agent.ask(f"/recover/{run_id}")[1]  # noqa: E731
        return agent.until(lambda: (r := report())["found"] or (r["state"] == "done" and [""]), "a pass")

    sentence = agent.until(lambda: next(filter(None, found()), ""), "a pass finds it hung")
    assert "longer than 5 s, although it works" in sentence
    (agent.home / "fake_gateway.json").unlink()  # the next one must be able to start
    agent.until(lambda: agent.gateway() != first, "another gateway")


def test_recovery_pass_over_healthy_services_changes_nothing(agent):
    before = agent.start().gateway()
    took_s: list[float] = []
    while min(took_s, default=2.0) >= 2 and len(took_s) < MOST_PASSES:
        report = agent.recover()
        assert (report["healthy"], report["found"], report["done"], report["left"]) == (True, [], [], [])
        took_s.append(report["finished_at"] - report["started_at"])
    assert min(took_s) < 2
    assert agent.gateway() == before


def test_gateway_stopped_by_hand_stays_stopped_after_a_recovery_pass_and_under_the_next_agent(agent):
    agent.start().gateway()
    assert agent.ask("/services/mlx_server/stop", {})[0] == 202
    stopped = lambda: agent.status()["services"]["mlx_server"]["state"] == "stopped"  # noqa: E731
    agent.until(stopped, "it is stopped")
    report = agent.recover()
    assert not report["healthy"]
    assert "stopped by hand" in report["left"][0]
    agent.kill()
    agent.process = agent.launch()
    by_hand = lambda: agent.status()["services"]["mlx_server"]["stopped_by_hand"]  # noqa: E731
    agent.until(by_hand, "the next agent knows that it was stopped by hand")
    assert stopped(), "it is still stopped"
    assert agent.ask("/services/mlx_server/start", {})[0] == 202
    assert agent.gateway()


def test_gateway_with_a_wrong_configuration_is_not_restarted_and_its_message_is_shown(agent):
    (agent.home / "fake_gateway.json").write_text(json.dumps({"exit_code": 78}))
    agent.process = agent.launch()
    row = lambda: agent.status()["services"]["mlx_server"]  # noqa: E731
    agent.until(lambda: row()["state"] == State.FAILED, "it has failed")
    assert "no such model" in row()["detail"]
    report = agent.recover()
    assert "no such model" in report["left"][0]
    assert "vestal recover --reset" in report["left"][0]
    (agent.home / "fake_gateway.json").unlink()
    assert agent.ask("/recover/reset", {})[0] == 202
    assert agent.gateway()


def test_recovery_pass_reports_a_failed_engine_and_does_not_restart_its_gateway(agent):
    before = agent.start().gateway()
    engine = {"pid": None, "state": "open", "detail": "five starts failed"}
    (agent.home / "fake_gateway.json").write_text(json.dumps({"status": "failed", "engine": engine}))
    report = agent.until(lambda: (r := agent.recover())["left"] and r, "the pass reports it")
    assert "mlx_engine: five starts failed" in report["left"]
    assert not report["healthy"]
    assert agent.status()["services"]["mlx_server"]["process_pid"] == before


def test_agent_status_has_every_documented_service_and_field(agent):
    status = agent.start().status()
    names = ["agent", "mlx_server", "mlx_engine", "ollama", "docker", "orchestrator", "nightly"]
    assert list(status["services"]) == names
    fields = {"state", "process_pid", "restart_count", "health_check_failures", "circuit_breaker_state"}
    for row in status["services"].values():
        assert fields | {"uptime_s", "detail"} <= set(row)
        assert row["state"] in set(State)
    assert {"memory", "wired_fraction", "sleep"} <= set(status["host"])
    assert status["services"]["agent"]["rss_bytes"] < 90 * 1024**2


def test_orchestrator_that_a_killed_agent_left_is_stopped_by_an_agent_that_runs_none(agent):
    """Earlier, only an upgrade stopped it: it ran on, and kept the port of the next orchestrator."""
    with subprocess.Popen([sys.executable, str(WAITS)], start_new_session=True) as left:
        identity = identify(left.pid)
        assert identity
        write_pid_file(agent.home / "run" / "orchestrator.json", identity)
        agent.start()
        try:
            agent.until(lambda: left.poll() is not None, "it is stopped")
        finally:
            left.kill()
    recorded = lambda: [e for e in agent.journal() if e["event"] == "service_not_wanted"]  # noqa: E731
    (entry,) = agent.until(recorded, "it is recorded")
    assert f"PID {identity.pid}" in entry["cause"]
