"""A container killed at its memory limit: by `docker inspect` and by the journal; the advised limit."""

from __future__ import annotations

from typing import Any

import pytest

from host_agent.doctor.memory.oom_advice import assess_events, assess_inspect, remedy

GIB = 1024**3


def inspect(**state: Any) -> dict[str, Any]:
    ended = {
        "Status": "exited",
        "Running": False,
        "OOMKilled": True,
        "ExitCode": 137,
        "FinishedAt": "2026-01-01",
    }
    return {
        "Config": {"Labels": {"com.docker.compose.service": "orchestrator"}},
        "HostConfig": {"Memory": 2 * GIB},
        "State": ended | state,
    }


def test_doctor_reports_a_container_killed_for_memory_with_its_limit_and_the_remedy():
    found = assess_inspect(inspect(), 16 * GIB)
    assert found
    assert found.sentence == "orchestrator was killed: it reached its limit of 2.0 GiB."
    assert found.remedy == "Set VESTAL_ORCHESTRATOR__MEM_LIMIT=3072m and run `vestal up`."
    assert "exit code 137" in found.evidence


@pytest.mark.parametrize(
    "state", [{"OOMKilled": False}, {"Running": True}, {"OOMKilled": False, "ExitCode": 0}]
)
def test_doctor_reports_no_kill_for_memory_without_evidence_in_docker_inspect(state: dict[str, Any]):
    # Exit code 137 alone only means SIGKILL.
    assert assess_inspect(inspect(**state), 16 * GIB) is None


def test_oom_remedy_with_too_little_docker_memory_advises_giving_docker_more():
    assert "Docker Desktop: Settings, Resources" in remedy(2 * GIB, 3 * GIB)
    assert "it has 3.0 GiB" in remedy(2 * GIB, 3 * GIB)


def test_oom_remedy_for_a_container_without_a_limit_advises_setting_one():
    assert "MEM_LIMIT=2g" in remedy(0, 8 * GIB)


def test_doctor_reports_the_newest_out_of_memory_event_of_each_service():
    def died(service: str, reason: str, cause: str) -> dict[str, Any]:
        return {"component": service, "cause": cause, "fields": {"reason": reason, "limit_bytes": 2 * GIB}}

    events = [
        died("nightly", "out_of_memory", "first"),
        died("nightly", "out_of_memory", "second"),
        died("orchestrator", "stopped", "by hand"),
    ]
    (found,) = assess_events(events, 0)
    assert "nightly" in found.sentence
    assert "second" in found.evidence
