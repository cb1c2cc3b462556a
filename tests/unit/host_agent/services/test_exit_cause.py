"""The end of a container is explained by evidence only; without any, exit code 137 has no known cause."""

from __future__ import annotations

import pytest

from host_agent.services.docker import container_status
from host_agent.services.docker.exit_cause import ContainerExitEvidence, ExitCause, explain
from vestal.supervision import State

GIB = 1024**3

# Recorded from `docker inspect` (engine 20.10) after the kernel ended the main process at its limit.
OOM_KILLED = {
    "Id": "891758fb95b7aaaaaaaa",
    "RestartCount": 0,
    "Config": {"Labels": {"com.docker.compose.service": "orchestrator"}},
    "HostConfig": {"Memory": 536870912},
    "State": {
        "Status": "exited",
        "Running": False,
        "Paused": False,
        "OOMKilled": True,
        "Pid": 0,
        "ExitCode": 137,
        "StartedAt": "2026-11-21T03:57:12.103930451Z",
        "FinishedAt": "2026-11-21T03:58:16.404526844Z",
    },
}
RUNNING = {
    "Id": "7d847cabd27baaaaaaaa",
    "RestartCount": 2,
    "HostConfig": {"Memory": 2 * GIB},
    "State": {
        "Status": "running",
        "Running": True,
        "OOMKilled": False,
        "Pid": 23751,
        "ExitCode": 0,
        "StartedAt": "2026-11-21T03:58:17.522122497Z",
        "Health": {"Status": "healthy", "FailingStreak": 0, "Log": []},
    },
}


@pytest.mark.parametrize(
    ("evidence", "cause"),
    [
        (ContainerExitEvidence(137, oom_flag=True), ExitCause.OUT_OF_MEMORY),
        (ContainerExitEvidence(137, oom_event_age_s=0.4), ExitCause.OUT_OF_MEMORY),
        (ContainerExitEvidence(137, oom_event_age_s=-0.4), ExitCause.OUT_OF_MEMORY),
        (ContainerExitEvidence(137, oom_event_age_s=3600), ExitCause.UNKNOWN_KILL),
        (ContainerExitEvidence(1, oom_event_age_s=0.4), ExitCause.ERROR),
        (ContainerExitEvidence(137), ExitCause.UNKNOWN_KILL),
        (ContainerExitEvidence(137, stopped_by="a person"), ExitCause.STOPPED),
        (ContainerExitEvidence(137, oom_flag=True, stopped_by="a person"), ExitCause.OUT_OF_MEMORY),
        (ContainerExitEvidence(137, kill_request_age_s=0.1), ExitCause.KILLED_BY_REQUEST),
        # `docker stop`, or compose that recreates the container
        (ContainerExitEvidence(0, stop_request_age_s=0.1), ExitCause.STOPPED),
        (ContainerExitEvidence(143, stop_request_age_s=0.1), ExitCause.STOPPED),
        (ContainerExitEvidence(137, stop_request_age_s=10.2, kill_request_age_s=0.1), ExitCause.STOPPED),
        (ContainerExitEvidence(137, oom_event_age_s=0.1, stop_request_age_s=5), ExitCause.OUT_OF_MEMORY),
        (ContainerExitEvidence(143), ExitCause.SIGNAL),
        (ContainerExitEvidence(139), ExitCause.SIGNAL),
        # The kernel ended another process of the container, perhaps long ago.
        (ContainerExitEvidence(0, oom_flag=True), ExitCause.FINISHED),
        (ContainerExitEvidence(143, oom_flag=True, stopped_by="a person"), ExitCause.STOPPED),
        (ContainerExitEvidence(1, oom_flag=True), ExitCause.ERROR),
        (ContainerExitEvidence(0), ExitCause.FINISHED),
        (ContainerExitEvidence(1), ExitCause.ERROR),
    ],
)
def test_container_exit_cause_is_the_one_with_the_strongest_evidence(
    evidence: ContainerExitEvidence, cause: ExitCause
):
    assert explain(evidence).cause is cause


def test_exit_cause_of_a_container_killed_for_lack_of_memory_states_its_limit_and_the_setting_for_it():
    sentence = explain(ContainerExitEvidence(137, oom_flag=True, limit_bytes=2 * GIB)).sentence
    assert "over its limit of 2.0 GiB" in sentence
    assert "VESTAL_ORCHESTRATOR__MEM_LIMIT" in sentence


def test_error_exit_of_a_container_after_a_memory_kill_inside_is_explained_with_the_setting_to_raise():
    sentence = explain(ContainerExitEvidence(1, oom_flag=True)).sentence
    assert "exit code 1" in sentence and "raise VESTAL_ORCHESTRATOR__MEM_LIMIT" in sentence
    assert "raise" not in explain(ContainerExitEvidence(1)).sentence


def test_container_killed_without_evidence_is_explained_as_cause_unknown():
    assert explain(ContainerExitEvidence(137)).sentence.startswith("SIGKILL, cause unknown")


def test_exit_cause_from_a_recorded_docker_inspect_of_an_oom_killed_container_is_out_of_memory():
    found = explain(container_status.evidence(OOM_KILLED))
    assert found.cause is ExitCause.OUT_OF_MEMORY
    assert "512 MiB" in found.sentence


def test_status_of_an_exited_container_has_its_exit_code_and_its_last_death():
    status = container_status.service_status(OOM_KILLED, now=0.0, last_death="03:58: killed by the kernel")
    assert (status.state, status.process_pid, status.uptime_s) == (State.STOPPED, None, 0.0)
    assert status.extra["exit_code"] == 137
    assert "killed by the kernel" in status.detail


def test_status_of_a_running_container_is_ready_with_its_uptime():
    started = container_status.timestamp(RUNNING["State"]["StartedAt"])  # type: ignore[index]
    status = container_status.service_status(RUNNING, now=started + 60)
    assert (status.state, status.process_pid, status.restart_count) == (State.READY, 23751, 2)
    assert status.uptime_s == pytest.approx(60)
    assert status.healthy


def test_status_of_a_ready_container_mentions_its_last_death_only_if_deaths_recur():
    assert (
        container_status.service_status(RUNNING, now=0.0, last_death="03:58: stopped by a person").detail
        == ""
    )
    assert container_status.service_status(
        RUNNING, now=0.0, last_death="03:58: its limit", is_recurring=True
    ).detail


@pytest.mark.parametrize(
    ("status", "health", "state"),
    [
        ("running", "starting", State.STARTING),
        ("running", "unhealthy", State.DEGRADED),
        ("running", "", State.READY),
        ("restarting", "", State.BACKOFF),
        ("paused", "", State.DEGRADED),
        ("created", "", State.STOPPED),
        ("dead", "", State.FAILED),
    ],
)
def test_container_status_maps_each_docker_state_to_a_service_state(status: str, health: str, state: State):
    inspect = {"State": {"Status": status, "Running": status == "running", "Health": {"Status": health}}}
    assert container_status.service_status(inspect, now=0.0).state is state


@pytest.mark.parametrize("text", [None, "", "0001-01-01T00:00:00Z", "nonsense"])
def test_docker_timestamp_that_is_missing_invalid_or_of_year_one_is_zero(text: object):
    assert container_status.timestamp(text) == 0.0
