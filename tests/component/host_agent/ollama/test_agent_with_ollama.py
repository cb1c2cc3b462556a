"""The agent with a program that behaves like Ollama, which it starts, adopts, leaves alone and stops."""

from __future__ import annotations

import json
import os
import signal
import urllib.request

import psutil

from tests.component.host_agent.conftest import WITHIN_S, AgentUnderTest, suspend
from tests.component.host_agent.ollama.conftest import ready, status_of
from tests.processes import has_ended


def test_agent_starts_ollama_if_none_runs_and_stops_it_when_the_agent_stops(agent, ollama):
    agent.start()
    pid = ready(agent)
    status = status_of(agent)
    assert (status["managed"], status["owner"], status["version"], status["models"]) == (
        True,
        "Vestal",
        "0.32.5",
        2,
    )
    assert "started by Vestal" in status["detail"]
    assert json.loads((agent.home / "run" / "ollama.json").read_text())["pid"] == pid
    assert "Listening on" in (agent.home / "logs" / "ollama.log").read_text()
    agent.process.send_signal(signal.SIGTERM)
    agent.process.communicate(timeout=WITHIN_S)
    assert has_ended(pid)
    assert not (agent.home / "run" / "ollama.json").exists()


def test_next_agent_adopts_the_ollama_of_a_killed_agent_even_if_the_ollama_pid_file_is_missing(agent, ollama):
    agent.start()
    server = ready(agent)
    (agent.home / "run" / "ollama.json").unlink()
    agent.kill()
    agent.start()
    assert ready(agent) == server
    assert json.loads((agent.home / "run" / "ollama.json").read_text())["pid"] == server


def test_ollama_that_ran_before_the_agent_keeps_running_when_the_agent_stops(agent, ollama):
    process = ollama.serve()
    agent.start()
    assert ready(agent) == process.pid
    status = status_of(agent)
    assert status["managed"] is False
    report = agent.recover()
    assert (report["found"], report["done"], report["healthy"]) == ([], [], True)
    agent.process.send_signal(signal.SIGTERM)
    agent.process.communicate(timeout=WITHIN_S)
    assert process.poll() is None


def test_agent_finds_ollama_at_the_address_in_ollama_host_and_restarts_it_there(agent, ollama):
    """Earlier, OLLAMA_HOST was not read: the agent started a second server at port 11434."""
    del agent.env["OLLAMA_BASE_URL"]
    agent.env["OLLAMA_HOST"] = f"0.0.0.0:{ollama.port}"
    process = ollama.serve()
    agent.start()
    assert ready(agent) == process.pid
    process.kill()
    process.wait()
    agent.recover()
    own = psutil.Process(ready(agent, but=process.pid))
    assert own.environ()["OLLAMA_HOST"] == f"0.0.0.0:{ollama.port}"


def test_agent_starts_no_ollama_while_this_user_runs_one_at_another_address(agent, ollama, free_port):
    asked_for, ollama.port = ollama.port, free_port()
    process = ollama.serve()
    agent.until(ollama.generate, "the user's server answers")
    agent.start()
    there = f"127.0.0.1:{ollama.port}"
    status = agent.until(lambda: there in (r := status_of(agent))["detail"] and r, "it is named")
    assert status["state"] == "stopped"
    assert f"(PID {process.pid}) listens at {there}" in status["detail"]
    assert f"set OLLAMA_BASE_URL=http://{there} to use it" in status["detail"]
    report = agent.recover()
    assert any(there in line for line in report["left"]), report
    code, answer = agent.ask("/services/ollama/start", {})
    assert (code, there in answer["error"]["message"]) == (409, True)
    assert not any(
        event["event"] == "child_started" for event in agent.journal() if event["component"] == "ollama"
    )
    process.kill()
    process.wait()
    agent.recover()
    ready(agent)
    with urllib.request.urlopen(f"http://127.0.0.1:{asked_for}/api/version", timeout=30) as reply:
        assert reply.status == 200


def test_ollama_stopped_by_hand_stays_stopped_until_started_by_hand(agent, ollama):
    agent.start()
    first = ready(agent)
    assert agent.ask("/services/ollama/stop", {})[0] == 202
    stopped = lambda: (r := status_of(agent))["state"] == "stopped" and r["stopped_by_hand"]  # noqa: E731
    agent.until(stopped, "it is stopped")
    assert has_ended(first)
    report = agent.recover()
    assert any("stopped by hand" in line for line in report["left"])
    agent.kill()
    agent.process = agent.launch()
    agent.until(stopped, "it is still stopped")
    agent.process.send_signal(signal.SIGTERM)
    agent.process.communicate(timeout=WITHIN_S)
    agent.process = agent.launch()
    agent.until(stopped, "it is still stopped after the agent stopped in order")
    assert agent.ask("/services/ollama/start", {})[0] == 202
    second = ready(agent)
    assert agent.ask("/services/ollama/restart", {})[0] == 202
    assert ready(agent, but=second)


def test_restarted_agent_adopts_the_ollama_that_it_had_started(agent, ollama):
    agent.start()
    first = ready(agent)
    agent.kill()
    assert psutil.pid_exists(first)
    agent.start()
    assert ready(agent) == first
    assert status_of(agent)["managed"] is True


def test_second_agent_neither_restarts_nor_stops_the_ollama_of_the_first_agent(
    agent, ollama, free_port, tmp_path_factory
):
    agent.start()
    first = ready(agent)
    other = AgentUnderTest(tmp_path_factory.mktemp("other"), free_port(), free_port())
    kept = ("VESTAL_HOME", "VESTAL_AGENT_PORT", "VESTAL_MLX_PORT")
    other.env = agent.env | {name: other.env[name] for name in kept}
    process = other.start().process
    assert process
    try:
        assert ready(other) == first
        assert "another Vestal" in status_of(other)["owner"]
        code, answer = other.ask("/services/ollama/restart", {})
        assert code == 409
        assert "another Vestal" in answer["error"]["message"]
        ollama.generate()
        assert agent.process
        suspend(agent.process.pid)  # or its own scheduled pass would replace the server
        try:
            ollama.misbehave(empty=True)
            assert not other.recover()["healthy"]
            assert psutil.pid_exists(first)
            ollama.misbehave()
        finally:
            os.kill(agent.process.pid, signal.SIGCONT)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=WITHIN_S)
    assert psutil.pid_exists(first)


def test_ollama_that_the_agent_only_watches_is_not_started_by_it(agent, ollama):
    agent.env["VESTAL_OLLAMA__MANAGE"] = "watch"
    agent.start()
    assert status_of(agent)["state"] == "stopped"
    report = agent.recover()
    assert any("only watches" in line and "`ollama serve`" in line for line in report["left"])
    code, answer = agent.ask("/services/ollama/start", {})
    assert code == 409
    assert "ollama.manage is watch" in answer["error"]["message"]
