"""The one sentence above the rows of GET /status, and the last failure of each service."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from host_agent.journal import Journal
from host_agent.services import (
    AGENT,
    DOCKER,
    MLX_ENGINE,
    MLX_SERVER,
    NIGHTLY,
    OLLAMA,
    ORCHESTRATOR,
)
from host_agent.services.service_status import Failure, ServiceStatus, manually_stopped
from host_agent.services.status.last_failures import LastFailures
from host_agent.services.status.verdict import verdict
from vestal.supervision import State

READY = ServiceStatus(State.READY)
DOWN = ServiceStatus(State.STOPPED, detail="No Docker engine was found on this machine.", remedy="start it")
OPEN = ServiceStatus(State.OPEN, detail="killed by SIGKILL", extra={"requests": {"parked": 2}})
PARENTS = {
    AGENT: None,
    MLX_SERVER: AGENT,
    MLX_ENGINE: MLX_SERVER,
    OLLAMA: AGENT,
    DOCKER: AGENT,
    ORCHESTRATOR: DOCKER,
    NIGHTLY: DOCKER,
}


def said(host: dict[str, Any] | None = None, **changed: ServiceStatus) -> str:
    rows = {name: replace(changed.get(name, READY), parent=parent) for name, parent in PARENTS.items()}
    return verdict(rows, host or {})


@pytest.mark.parametrize(
    ("changed", "host", "sentence"),
    [
        ({}, {}, "All 7 services work."),
        ({"ollama": ServiceStatus(State.ABSENT, expected=False)}, {}, "All 6 services work."),
        (
            {},
            {"disk": {"message": "The disk is full."}},
            "All 7 services work, but note: The disk is full.",
        ),
        (
            {"docker": DOWN, "orchestrator": DOWN, "nightly": DOWN},
            {},
            "The Docker engine is stopped: No Docker engine was found on this machine; start it.",
        ),
        (
            {"mlx_server": ServiceStatus(State.DEGRADED, detail="killed by SIGKILL"), "mlx_engine": OPEN},
            {},
            "The MLX engine failed too often and is given up for now: killed by SIGKILL; "
            "2 requests wait for it.",
        ),
        (
            {"mlx_server": ServiceStatus(State.STARTING), "mlx_engine": ServiceStatus(State.STARTING)},
            {},
            "The MLX server is starting.",
        ),
        (
            {"mlx_server": manually_stopped(), "mlx_engine": ServiceStatus(State.STOPPED)},
            {},
            "The MLX server was stopped by hand; `vestal up` starts what was stopped.",
        ),
        (
            {"nightly": manually_stopped(), "ollama": ServiceStatus(State.FAILED, detail="exit code 78")},
            {},
            "Ollama cannot start: exit code 78; not well either: nightly.",
        ),
        (
            {"ollama": DOWN, "mlx_engine": replace(OPEN, state=State.BACKOFF)},
            {},
            "Ollama is stopped: No Docker engine was found on this machine; start it; "
            "2 requests wait for the MLX engine; not well either: the MLX engine.",
        ),
        (
            {"mlx_server": replace(DOWN, detail="it ended"), "mlx_engine": OPEN},
            {},
            "The MLX server is stopped: it ended; start it; 2 requests wait for it.",
        ),
    ],
)
def test_status_verdict_names_the_failed_service_and_not_services_that_depend_on_it(changed, host, sentence):
    assert said(host, **changed) == sentence


def test_last_failures_include_journal_entries_from_before_the_agents_start(home):
    journal = Journal(home / "journal.db", wall=lambda: 5.0)
    journal.record(MLX_ENGINE, "child_exited", "killed by SIGKILL", pid=7, planned=False)
    journal.record(MLX_ENGINE, "child_exited", "restarted by hand", pid=8, planned=True)
    journal.record(MLX_SERVER, "child_ready")
    journal.record(ORCHESTRATOR, "container_died", "stopped by a person (exit code 0)", reason="stopped")
    journal.record("watchdog", "child_exited", "exit code 1", pid=9, planned=False)
    journal.close()
    journal = Journal(home / "journal.db", wall=lambda: 6.0)
    failures = LastFailures(journal)
    killed = Failure(5.0, "Its process (PID 7) ended: killed by SIGKILL.")
    assert failures.by_service() == {MLX_ENGINE: killed}
    journal.record(NIGHTLY, "container_died", "SIGKILL, cause unknown (exit code 137)", reason="unknown_kill")
    assert failures.by_service() == {
        MLX_ENGINE: killed,
        NIGHTLY: Failure(6.0, "Its container ended: SIGKILL, cause unknown (exit code 137)."),
    }
