"""Which findings of `vestal doctor` get an action, and which one."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from host_agent.doctor.finding import Finding
from host_agent.doctor.services.unhealthy import assess_service
from host_agent.doctor.unresponsive.hung import assess_hung
from host_agent.doctor.unresponsive.server_probe import UnresponsiveServer
from host_agent.listener.commands.doctor_actions import action_for
from host_agent.services import NAMES


def path(finding: Finding | None) -> str | None:
    assert finding
    action = action_for(asdict(finding), NAMES)
    if action is None:
        return None
    assert action["method"] == "POST" and action["label"]
    return action["path"]


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ({"state": "stopped", "detail": "stopped by hand"}, "/services/ollama/start"),
        ({"state": "degraded", "detail": "slow"}, "/recover"),
        ({"state": "failed"}, "/recover/reset"),
        ({"state": "backoff", "circuit_breaker_state": "half_open"}, "/recover/reset"),
    ],
)
def test_doctor_finding_of_an_unhealthy_service_offers_a_repair_action(service, expected):
    finding = assess_service("ollama", {"expected": True, "circuit_breaker_state": "closed", **service})
    assert path(finding) == expected


@pytest.mark.parametrize(
    ("service", "expected"), [("mlx_server", "/recover"), ("ollama", "/services/ollama/restart")]
)
def test_doctor_finding_of_a_hung_server_offers_a_repair_action(service, expected):
    server = UnresponsiveServer(service, "http://127.0.0.1:1", "no answer", 7, None)
    assert path(assess_hung(server)) == expected


def test_doctor_findings_of_an_outdated_process_and_an_absent_ollama_offer_a_repair_action():
    outdated = Finding("configuration", "note", "The process agent is out of date: its code.", "`vestal up`")
    assert path(outdated) == "/upgrade"
    assert path(Finding("ollama_not_running", "fault", "Ollama is installed and does not run.")) == "/recover"


@pytest.mark.parametrize(
    "finding",
    [
        Finding("services", "ok", "The agent reports all services as healthy.", "`vestal recover --once`"),
        Finding("orphans", "fault", "A runner of Ollama (PID 7) has outlived its server.", "`kill 7`"),
        Finding("disk_full", "fault", "Only 1 MB is free.", "`vestal cache clear`"),
        Finding("missing_model", "note", "m is not there.", "`vestal models ensure m`"),
        Finding("services", "note", "evil was stopped by hand.", "`vestal up` starts it again."),
        Finding("ollama_not_running", "note", "Ollama is switched off."),
    ],
)
def test_doctor_finding_without_a_safe_repair_offers_no_action(finding):
    assert path(finding) is None
