"""The agent with a program that behaves like Ollama and hangs, answers nothing, dies or leaves a runner."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

import psutil
import pytest

from tests.component.host_agent.ollama.conftest import ready, status_of
from tests.processes import has_ended


def check_ended_by_sigterm(ollama, runner: int) -> None:
    """Fail unless the runner has ended, and by SIGTERM: by SIGKILL it may strand wired memory."""
    assert runner not in ollama.runners()
    assert ollama.control.with_name("runner_ended").read_text() == "SIGTERM"


def use_once(ollama) -> None:
    """Load a model by a user's request, which may fail: a model that answered before is probed only after its
    next use.
    """
    with contextlib.suppress(OSError):
        ollama.generate()


def test_killed_managed_ollama_restarts_and_its_runners_get_sigterm(agent, ollama):
    agent.start()
    first = ready(agent)
    ollama.generate()
    (runner,) = ollama.runners()
    os.kill(first, signal.SIGKILL)
    assert ready(agent, but=first)
    check_ended_by_sigterm(ollama, runner)


def test_recovery_pass_replaces_a_hung_managed_ollama_with_a_new_server(agent, ollama):
    agent.start()
    first = ready(agent)
    ollama.misbehave(hang="all", ignore_term=True)
    run_id = agent.begin_pass()
    agent.until(lambda: has_ended(first), "the hung server has ended")
    ollama.misbehave()
    assert ready(agent, but=first)
    report = agent.pass_done(run_id)
    assert any("end the hung process" in line and "it is healthy now" in line for line in report["done"]), (
        report
    )


@pytest.mark.parametrize("fault", [{"empty": True}, {"status": 500}])
def test_managed_ollama_that_answers_empty_text_or_500_is_replaced_by_a_recovery_pass(agent, ollama, fault):
    agent.start()
    first = ready(agent)
    ollama.misbehave(**fault)
    use_once(ollama)
    run_id = agent.begin_pass()
    agent.until(lambda: has_ended(first), "the broken server has ended")
    ollama.misbehave()
    assert ready(agent, but=first)
    report = agent.pass_done(run_id)
    assert report["healthy"], report


def test_managed_ollama_that_answers_empty_text_is_replaced_without_a_recovery_pass(agent, ollama):
    agent.env["VESTAL_SUPERVISION__HEALTH_INTERVAL_S"] = "0.2"
    agent.start()
    first = ready(agent)
    ollama.misbehave(empty=True)
    use_once(ollama)
    agent.until(lambda: has_ended(first), "the broken server has ended")
    ollama.misbehave()
    assert ready(agent, but=first)
    assert any(
        e["event"] == "health_failed" and "empty text" in e["cause"] and e["component"] == "ollama"
        for e in agent.journal()
    )


def test_broken_ollama_started_by_hand_is_replaced_by_one_that_the_agent_manages(agent, ollama):
    """The shell that started Ollama has ended, so nobody else would restart Ollama."""
    shell = subprocess.run(
        ["sh", "-c", f"{ollama.program} serve >/dev/null 2>&1 & echo $!"],
        env={k: v for k, v in os.environ.items() if not k.startswith("VESTAL_")} | ollama.env,
        capture_output=True,
        text=True,
        check=True,
    )
    first = int(shell.stdout)
    ollama.until_it_answers()
    agent.start()
    assert ready(agent) == first
    assert status_of(agent)["owner"] == "nobody (it was started by hand)"
    ollama.misbehave(empty=True)
    use_once(ollama)
    agent.ask("/recover", {})
    agent.until(lambda: has_ended(first), "the broken server has ended")
    ollama.misbehave()
    assert ready(agent, but=first)
    assert status_of(agent)["managed"] is True


def test_ollama_that_does_not_list_the_users_models_is_reported_and_keeps_running(agent, ollama):
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


def test_orphaned_ollama_runner_is_terminated_by_a_recovery_pass(agent, ollama):
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
    check_ended_by_sigterm(ollama, runner)
    assert any("runner" in line for line in report["found"])
    assert ready(agent, but=process.pid)


def test_ollama_that_cannot_start_opens_its_breaker_and_no_recovery_pass_starts_it(agent, ollama):
    ollama.misbehave(exit_code=1)
    agent.start()
    status = agent.until(lambda: (r := status_of(agent))["state"] == "open" and r, "its breaker is open")
    assert status["circuit_breaker_state"] == "open"
    assert "could not create the server" in status["detail"]
    report = agent.recover()
    assert any("vestal recover --reset" in line for line in report["left"])
    assert status_of(agent)["state"] == "open"
    ollama.misbehave()
    assert agent.ask("/recover/reset", {})[0] == 202
    assert ready(agent)


def test_ollama_runner_that_outlived_agent_and_server_gets_sigterm_from_the_next_agent(agent, ollama):
    agent.start()
    first = ready(agent)
    ollama.generate()
    (runner,) = ollama.runners()
    agent.kill()
    os.kill(first, signal.SIGKILL)
    agent.start()
    assert ready(agent, but=first)
    check_ended_by_sigterm(ollama, runner)


def test_runners_of_an_adopted_ollama_get_sigterm_when_the_server_dies(agent, ollama):
    """Earlier, runners of an adopted server got SIGKILL at once, which can strand wired memory."""
    agent.start()
    first = ready(agent)
    agent.kill()
    agent.start()
    assert ready(agent) == first
    ollama.generate()
    (runner,) = ollama.runners()
    os.kill(first, signal.SIGKILL)
    assert ready(agent, but=first)
    check_ended_by_sigterm(ollama, runner)
