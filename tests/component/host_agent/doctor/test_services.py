"""Services that die at start, and services that the agent reports as unhealthy: with a real agent."""

from __future__ import annotations

import json
import signal

from host_agent import agent_client
from host_agent.doctor.services import dies_at_start, orphans, unhealthy
from tests.component.host_agent.conftest import AgentUnderTest
from tests.component.host_agent.doctor.conftest import faults
from vestal.config import Config, load


def config_of(agent: AgentUnderTest) -> Config:
    """Return the settings of this test's agent."""
    return load(agent.env, agent.home)


def test_doctor_reports_the_last_log_lines_of_a_gateway_that_exits_at_start(agent: AgentUnderTest):
    (agent.home / "fake_gateway.json").write_text(json.dumps({"exit_code": 78}))
    agent.process = agent.launch()
    agent.until(lambda: agent.status()["services"]["mlx_server"]["state"] == "failed", "it has failed")
    (found,) = faults(dies_at_start.diagnose(config_of(agent)))
    assert "mlx_server ended" in found.sentence and "it is no longer restarted" in found.sentence
    assert "no such model" in found.evidence
    assert "configuration" in found.remedy
    (failed,) = faults(unhealthy.diagnose(config_of(agent)))
    assert failed.sentence == "mlx_server is no longer restarted (failed)."
    assert "no such model" in failed.evidence
    assert "recover --reset" in failed.remedy


def test_doctor_reports_no_fault_for_a_gateway_that_became_ready(agent: AgentUnderTest):
    agent.start()
    config = config_of(agent)
    assert faults(dies_at_start.diagnose(config)) == []
    assert [found.level for found in unhealthy.diagnose(config)] == ["ok"]


def test_doctor_reports_a_gateway_stopped_by_hand_as_a_note(agent: AgentUnderTest):
    agent.start()
    agent.ask("/services/mlx_server/stop", {})
    found = agent.until(
        lambda: [f for f in unhealthy.diagnose(config_of(agent)) if f.level == "note"], "it was stopped"
    )
    assert "mlx_server was stopped by hand" in found[0].sentence


def test_doctor_reports_only_a_note_if_no_agent_runs_for_its_vestal_home_folder(configure):
    assert [found.level for found in unhealthy.diagnose(configure())] == ["note"]


def test_doctor_reports_a_silent_agent_as_a_note_and_a_missing_token_as_a_fault(
    agent: AgentUnderTest, monkeypatch
):
    monkeypatch.setattr(agent_client, "TIMEOUT_S", 0.3)
    agent.start()
    assert agent.process
    agent.process.send_signal(signal.SIGUSR1)
    config = config_of(agent)
    (found,) = unhealthy.diagnose(config)
    (agent.home / "token").unlink()
    (refused,) = unhealthy.diagnose(config)
    agent.kill()
    agent.process = None
    assert found.level == "note", "the diagnosis `hung` reports it as a fault"
    assert "does not report its state" in found.sentence
    assert refused.level == "fault"
    assert "There is no token" in refused.evidence


def test_doctor_reads_the_failure_of_a_gateway_from_the_journal_of_a_dead_agent(agent: AgentUnderTest):
    (agent.home / "fake_gateway.json").write_text(json.dumps({"exit_code": 78}))
    agent.process = agent.launch()
    agent.until(lambda: agent.status()["services"]["mlx_server"]["state"] == "failed", "it has failed")
    agent.kill()
    agent.process = None
    assert len(faults(dies_at_start.diagnose(config_of(agent)))) == 1


def test_doctor_does_not_report_processes_of_a_running_agent_as_orphans(agent: AgentUnderTest):
    agent.start()
    assert faults(orphans.diagnose(config_of(agent))) == []
