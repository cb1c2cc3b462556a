"""The agent with a program that behaves like Ollama, which it starts, adopts, replaces and stops."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.children import stand_in_ollama
from tests.component.host_agent.conftest import AgentUnderTest
from tests.processes import has_ended


class StandIn:
    """A program `ollama` on a PATH of its own, a file that controls it, and the servers started by hand."""

    def __init__(self, folder: Path, port: int) -> None:
        self.program = stand_in_ollama.install(folder / "bin")
        self.control, self.port, self.home = folder / "control.json", port, folder / "user"
        self.home.mkdir()
        self.by_hand: list[subprocess.Popen[bytes]] = []

    @property
    def env(self) -> dict[str, str]:
        return {
            "PATH": f"{self.program.parent}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "STAND_IN_OLLAMA": str(self.control),
            "OLLAMA_HOST": f"127.0.0.1:{self.port}",
        }

    def misbehave(self, **how: Any) -> None:
        """Control the servers from now on; without arguments they work again."""
        fresh = self.control.with_suffix(".new")
        fresh.write_text(json.dumps(how))
        fresh.rename(self.control)

    def serve(self) -> subprocess.Popen[bytes]:
        """Start a server as a person would, in a session that has ended."""
        process = subprocess.Popen(
            [str(self.program), "serve"],
            env={k: v for k, v in os.environ.items() if not k.startswith("VESTAL_")} | self.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.by_hand.append(process)
        return process

    def generate(self, model: str = "smollm2:135m", timeout_s: float = 5) -> dict[str, Any]:
        body = json.dumps({"model": model, "prompt": "one", "stream": False}).encode()
        url = f"http://127.0.0.1:{self.port}/api/generate"
        with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=timeout_s) as reply:
            return json.loads(reply.read())

    def runners(self) -> list[int]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
                if str(self.program) in line and "runner" in line and process.status() != "zombie":
                    found.append(process.pid)
        return found


@pytest.fixture
def ollama(tmp_path: Path, free_port: Callable[[], int], agent: AgentUnderTest) -> Iterator[StandIn]:
    stand_in = StandIn(tmp_path, free_port())
    own = {
        "VESTAL_OLLAMA__MANAGE": "auto",
        "OLLAMA_BASE_URL": f"http://127.0.0.1:{stand_in.port}",
        "VESTAL_OLLAMA__PROBE_INTERVAL_S": "0.1",
        "VESTAL_SUPERVISION__BACKOFF_BASE_S": "0.05",
    }
    agent.env |= stand_in.env | own
    yield stand_in
    stand_in.misbehave()
    if agent.process and agent.process.poll() is None:
        agent.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            agent.process.communicate(timeout=10)
    for process in stand_in.by_hand:
        process.kill()
        process.wait()
    for pid in stand_in.runners():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def status_of(agent: AgentUnderTest) -> dict[str, Any]:
    return agent.status()["services"]["ollama"]


def ready(agent: AgentUnderTest, but: int | None = None) -> int:
    """Wait until a server is ready and return its PID, which is not `but`."""

    def found() -> int | None:
        seen = status_of(agent)
        pid = seen["process_pid"]
        return pid if seen["state"] == "ready" and pid != but else None

    return int(agent.until(found, "Ollama is ready"))


def test_ollama_without_an_owner_is_started_and_stops_with_the_agent(agent, ollama):
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
    agent.process.communicate(timeout=15)
    assert has_ended(pid)
    assert not (agent.home / "run" / "ollama.json").exists()


def test_ollama_of_a_killed_agent_is_adopted_although_no_pid_file_names_it(agent, ollama):
    agent.start()
    server = ready(agent)
    (agent.home / "run" / "ollama.json").unlink()
    agent.kill()
    agent.start()
    assert ready(agent) == server
    assert json.loads((agent.home / "run" / "ollama.json").read_text())["pid"] == server


def test_running_ollama_is_left_running_when_the_agent_stops(agent, ollama):
    process = ollama.serve()
    agent.start()
    assert ready(agent) == process.pid
    status = status_of(agent)
    assert status["managed"] is False
    report = agent.recover()
    assert (report["found"], report["done"], report["healthy"]) == ([], [], True)
    agent.process.send_signal(signal.SIGTERM)
    agent.process.communicate(timeout=15)
    assert process.poll() is None


def test_ollama_at_the_address_in_ollama_host_is_found_and_a_restart_binds_it(agent, ollama):
    """OLLAMA_HOST was not read: the agent looked at 11434, and started a second server there."""
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


def test_nothing_is_started_beside_another_server_of_this_user(agent, ollama, free_port):
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
    with urllib.request.urlopen(f"http://127.0.0.1:{asked_for}/api/version", timeout=5) as reply:
        assert reply.status == 200


def test_killed_managed_ollama_restarts_and_its_runners_get_sigterm(agent, ollama):
    agent.start()
    first = ready(agent)
    ollama.generate()
    (runner,) = ollama.runners()
    os.kill(first, signal.SIGKILL)
    assert ready(agent, but=first)
    assert runner not in ollama.runners()
    assert ollama.control.with_name("runner_ended").read_text() == "SIGTERM"


def test_hung_managed_ollama_is_replaced_by_a_pass(agent, ollama):
    agent.start()
    first = ready(agent)
    ollama.misbehave(hang="all", ignore_term=True)
    run_id = agent.begin_pass()
    agent.until(lambda: has_ended(first), "the hung server has ended", 30)
    ollama.misbehave()
    assert ready(agent, but=first)
    report = agent.pass_done(run_id)
    assert any("end the hung process" in line and "it is healthy now" in line for line in report["done"]), (
        report
    )


@pytest.mark.parametrize("fault", [{"empty": True}, {"status": 500}])
def test_managed_ollama_with_empty_answers_is_replaced(agent, ollama, fault):
    agent.start()
    first = ready(agent)
    ollama.generate()
    ollama.misbehave(**fault)
    run_id = agent.begin_pass()
    agent.until(lambda: has_ended(first), "the broken server has ended", 30)
    ollama.misbehave()
    assert ready(agent, but=first)
    report = agent.pass_done(run_id)
    assert report["healthy"], report


def test_hung_managed_ollama_is_replaced_by_its_supervisor_without_a_pass(agent, ollama):
    agent.env["VESTAL_SUPERVISION__HEALTH_INTERVAL_S"] = "0.2"
    agent.start()
    first = ready(agent)
    ollama.generate()
    ollama.misbehave(empty=True)
    agent.until(lambda: has_ended(first), "the broken server has ended", 30)
    ollama.misbehave()
    assert ready(agent, but=first)
    assert any(
        e["event"] == "health_failed" and "empty text" in e["cause"] and e["component"] == "ollama"
        for e in agent.journal()
    )


def test_broken_ollama_without_an_owner_is_replaced_by_a_managed_one(agent, ollama):
    """The shell that started it has ended, so nobody else would restart it."""
    shell = subprocess.run(
        ["sh", "-c", f"{ollama.program} serve >/dev/null 2>&1 & echo $!"],
        env={k: v for k, v in os.environ.items() if not k.startswith("VESTAL_")} | ollama.env,
        capture_output=True,
        text=True,
        check=True,
    )
    first = int(shell.stdout)
    agent.start()
    assert ready(agent) == first
    assert status_of(agent)["owner"] == "nobody (it was started by hand)"
    ollama.generate()
    ollama.misbehave(empty=True)
    agent.ask("/recover", {})
    agent.until(lambda: has_ended(first), "the broken server has ended", 30)
    ollama.misbehave()
    assert ready(agent, but=first)
    assert status_of(agent)["managed"] is True


def test_ollama_of_another_user_is_reported_because_it_lists_no_models(agent, ollama):
    manifest = ollama.home / ".ollama" / "models" / "manifests" / "registry.ollama.ai" / "library" / "a"
    manifest.mkdir(parents=True)
    (manifest / "latest").write_text("{}")
    ollama.misbehave(models=[])
    process = ollama.serve()
    agent.start()
    status = agent.until(lambda: (r := status_of(agent))["state"] == "degraded" and r, "Ollama is degraded")
    assert "lists no models" in status["detail"]
    assert "brew services stop ollama" in status["detail"]
    report = agent.recover()
    assert not report["healthy"]
    assert any("lists no models" in line for line in report["left"])
    assert process.poll() is None


def test_orphaned_runner_is_terminated_by_a_pass(agent, ollama):
    ollama.misbehave(leave_runner=True)
    process = ollama.serve()
    agent.start()
    ready(agent)
    ollama.generate()
    (runner,) = ollama.runners()
    process.kill()
    process.wait()
    ollama.misbehave()
    assert psutil.pid_exists(runner)
    report = agent.recover()
    assert runner not in ollama.runners()
    assert ollama.control.with_name("runner_ended").read_text() == "SIGTERM"
    assert any("runner" in line for line in report["found"])
    assert ready(agent, but=process.pid)


def test_ollama_that_cannot_start_opens_its_breaker_and_no_pass_starts_it(agent, ollama):
    ollama.misbehave(exit_code=1)
    agent.start()
    status = agent.until(lambda: (r := status_of(agent))["state"] == "open" and r, "its breaker is open", 30)
    assert status["circuit_breaker_state"] == "open"
    assert "could not create the server" in status["detail"]
    report = agent.recover()
    assert any("vestal recover --reset" in line for line in report["left"])
    assert status_of(agent)["state"] == "open"
    ollama.misbehave()
    assert agent.ask("/recover/reset", {})[0] == 202
    assert ready(agent)


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
    agent.process.communicate(timeout=15)
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


def test_runner_that_outlived_agent_and_ollama_gets_sigterm_from_the_next_agent(agent, ollama):
    agent.start()
    first = ready(agent)
    ollama.generate()
    (runner,) = ollama.runners()
    agent.kill()
    os.kill(first, signal.SIGKILL)
    agent.start()
    assert ready(agent, but=first)
    assert runner not in ollama.runners()
    assert ollama.control.with_name("runner_ended").read_text() == "SIGTERM"


def test_second_agent_does_not_touch_the_first_ones_ollama(agent, ollama, free_port, tmp_path_factory):
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
        os.kill(agent.process.pid, signal.SIGSTOP)  # or its own scheduled pass would replace the server
        try:
            ollama.misbehave(empty=True)
            assert not other.recover()["healthy"]
            assert psutil.pid_exists(first)
            ollama.misbehave()
        finally:
            os.kill(agent.process.pid, signal.SIGCONT)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=15)
    assert psutil.pid_exists(first)


def test_watched_ollama_is_not_touched(agent, ollama):
    agent.env["VESTAL_OLLAMA__MANAGE"] = "watch"
    agent.start()
    assert status_of(agent)["state"] == "stopped"
    report = agent.recover()
    assert any("only watches" in line and "`ollama serve`" in line for line in report["left"])
    code, answer = agent.ask("/services/ollama/start", {})
    assert code == 409
    assert "ollama.manage is watch" in answer["error"]["message"]


def test_runners_of_an_adopted_ollama_that_dies_get_sigterm(agent, ollama):
    """Runners of an adopted server got SIGKILL at once, which can strand wired memory."""
    agent.start()
    first = ready(agent)
    agent.kill()
    agent.start()
    assert ready(agent) == first
    ollama.generate()
    (runner,) = ollama.runners()
    os.kill(first, signal.SIGKILL)
    assert ready(agent, but=first)
    assert runner not in ollama.runners()
    assert ollama.control.with_name("runner_ended").read_text() == "SIGTERM"
