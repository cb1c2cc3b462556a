"""The status of Ollama: its owner, version and models, and what is wrong."""

from __future__ import annotations

from dataclasses import replace

from host_agent.services.ollama.answers import ModelProbeResult, ServerInfo
from host_agent.services.ollama.ownership import Owner, OwnerKind
from host_agent.services.ollama.status import Observation, service_status
from vestal.supervision import ChildStatus, State

NO_CHILD = ChildStatus(State.STOPPED)
INFO = ServerInfo("0.32.5", ("a", "b"))
OWNED = Observation(owner=Owner(OwnerKind.BREW, "homebrew.mxcl.ollama", 900, "ada"), server_info=INFO)
OWN = Observation(owner=Owner(OwnerKind.OURS, pid=7), server_info=INFO)


def test_status_of_ollama_with_an_owner_names_owner_version_and_models():
    status = service_status(OWNED, NO_CHILD)
    assert (status.state, status.process_pid, status.healthy) == (State.READY, 900, True)
    assert (
        status.detail
        == "version 0.32.5, 2 models; looked after by Homebrew's services (homebrew.mxcl.ollama)"
    )
    assert (status.extra["version"], status.extra["models"], status.extra["managed"]) == ("0.32.5", 2, False)


def test_status_of_failing_ollama_names_the_failure_and_the_service_manager_that_runs_it():
    status = service_status(
        replace(OWNED, server_info=None, verdict=ModelProbeResult(False, "no answer within 3 s"), failures=1),
        NO_CHILD,
    )
    assert (status.state, status.healthy, status.health_check_failures) == (State.DEGRADED, False, 1)
    assert "does not answer (no answer within 3 s); looked after by Homebrew's" in status.detail


def test_status_of_busy_ollama_is_healthy():
    status = service_status(
        replace(OWNED, verdict=ModelProbeResult(True, "busy: a token waits", busy=True)), NO_CHILD
    )
    assert (status.state, status.healthy, status.detail) == (State.BUSY, True, "busy: a token waits")


def test_status_of_another_users_ollama_says_how_to_stop_it():
    seen = replace(OWNED, owner=Owner(OwnerKind.OTHER_USER, "eve", 900, "eve"), lists_no_models=True)
    status = service_status(seen, NO_CHILD)
    assert status.state is State.DEGRADED
    assert "as eve and lists no models" in status.detail
    assert "brew services stop ollama" in status.detail


def test_status_of_ollama_run_by_the_agent_is_not_ready_while_health_checks_fail():
    """Ollama's state once stayed `ready` until its supervisor had counted three failed checks."""
    child = ChildStatus(State.READY, 7, restart_count=2)
    assert service_status(OWN, child).detail == "version 0.32.5, 2 models; started by Vestal"
    assert service_status(OWN, child).restart_count == 2
    failing = replace(OWN, server_info=None, verdict=ModelProbeResult(False, "no answer within 3 s"))
    for state in (State.READY, State.BUSY, State.DEGRADED):
        found = service_status(failing, replace(child, state=state, detail="busy: a token waits"))
        assert (found.state, found.healthy, found.restart_count) == (State.DEGRADED, False, 2)
        assert found.detail == "does not answer (no answer within 3 s); started by Vestal"
    opened = ChildStatus(State.OPEN, circuit_breaker_state="open", detail="exit code 1: Error: listen tcp")
    assert service_status(replace(OWN, owner=Owner(), server_info=None), opened).detail == opened.detail


def test_ollama_that_is_not_installed_has_the_status_absent_even_if_another_program_holds_its_port():
    seen = Observation(owner=Owner(OwnerKind.STRANGER, "nginx (PID 5)", 5), installed=False)
    status = service_status(seen, NO_CHILD)
    assert (status.state, status.healthy) == (State.ABSENT, True)
    assert "nginx (PID 5)" in status.detail
