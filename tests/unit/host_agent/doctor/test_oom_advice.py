"""A container over its limit: from Docker's record and from the journal, and which limit would do."""

from __future__ import annotations

from typing import Any

import pytest

from host_agent.doctor.memory.oom_advice import advice, from_journal, from_record

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


def test_record_of_a_killed_container_tells_limit_and_remedy():
    found = from_record(inspect(), 16 * GIB)
    assert found
    assert found.sentence == "orchestrator was killed: it reached its limit of 2.0 GiB"
    assert found.remedy == "set VESTAL_ORCHESTRATOR__MEM_LIMIT=3072m and run `vestal up`"
    assert "exit code 137" in found.evidence


@pytest.mark.parametrize(
    "state", [{"OOMKilled": False}, {"Running": True}, {"OOMKilled": False, "ExitCode": 0}]
)
def test_record_without_evidence_is_no_finding(state: dict[str, Any]):
    # 137 alone is only SIGKILL.
    assert from_record(inspect(**state), 16 * GIB) is None


def test_limit_that_the_engine_cannot_give_asks_for_more_for_docker_first():
    assert "Docker Desktop: Settings, Resources" in advice(2 * GIB, 3 * GIB)
    assert "the engine has 3.0 GiB" in advice(2 * GIB, 3 * GIB)


def test_container_without_a_limit_gets_one():
    assert "MEM_LIMIT=2g" in advice(0, 8 * GIB)


def test_journal_tells_the_newest_of_each_service_that_was_out_of_memory():
    def died(service: str, reason: str, cause: str) -> dict[str, Any]:
        return {"component": service, "cause": cause, "fields": {"reason": reason, "limit_bytes": 2 * GIB}}

    events = [
        died("nightly", "out_of_memory", "first"),
        died("nightly", "out_of_memory", "second"),
        died("orchestrator", "stopped", "by hand"),
    ]
    (found,) = from_journal(events, 0)
    assert "nightly" in found.sentence
    assert "second" in found.evidence
