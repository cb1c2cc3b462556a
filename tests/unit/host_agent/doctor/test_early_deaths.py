"""Services that end right after their start, and what their last log lines mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from host_agent.doctor.services import dies_at_start
from host_agent.doctor.services.early_deaths import EarlyDeath, find
from host_agent.service_manager.jobs import JobState


def event(ts: float, name: str, pid: int = 0, cause: str = "", service: str = "mlx_server") -> dict[str, Any]:
    return {
        "ts": ts,
        "component": service,
        "event": name,
        "cause": cause,
        "fields": {"pid": pid} if pid else {},
    }


def test_early_death_of_a_service_is_reported_with_the_number_of_consecutive_early_deaths():
    events = [
        event(0, "child_started", 1),
        event(1, "child_exited", 1, "exit code 1"),
        event(3, "child_started", 2),
        event(5, "child_exited", 2, "exit code 1"),
    ]
    assert find(events) == [EarlyDeath("mlx_server", "exit code 1", 2.0, 2)]


def test_early_death_of_a_service_that_is_no_longer_restarted_is_marked_as_given_up():
    events = [
        event(0, "child_started", 1),
        event(1, "child_exited", 1, "exit code 78"),
        event(1, "child_gave_up", 0, "exit code 78: unknown key mlx.prot"),
    ]
    assert find(events) == [EarlyDeath("mlx_server", "exit code 78: unknown key mlx.prot", 1.0, 1, True)]


@pytest.mark.parametrize(
    "later",
    [
        [event(3, "child_started", 2), event(9, "child_ready", 2)],  # it became ready
        [event(3, "child_stopped")],  # it was stopped
        [event(3, "child_started", 2), event(90, "child_exited", 2, "exit code 1")],  # it ended late
        [event(3, "child_started", 2), event(4, "child_exited", 2, "the supervisor stops")],  # requested
    ],
)
def test_early_deaths_of_a_service_that_became_ready_or_was_stopped_later_are_ignored(
    later: list[dict[str, Any]],
):
    assert find([event(0, "child_started", 1), event(1, "child_exited", 1, "exit code 1"), *later]) == []


def test_early_deaths_include_a_program_that_cannot_be_run():
    (found,) = find([event(0, "child_launch_failed", 0, "No such file or directory: 'x'")])
    assert found.cause == "it cannot be run: No such file or directory: 'x'"


def test_early_deaths_do_not_include_a_process_that_ended_before_its_start_because_the_clock_was_set_back():
    events = [event(10_000, "child_started", 1), event(7_600, "child_exited", 1, "exit code 1")]
    assert find(events) == []


def test_early_deaths_do_not_include_an_exit_without_a_recorded_start():
    assert find([event(1, "child_exited", 1, "exit code 1")]) == []


@pytest.mark.parametrize(
    ("last_lines", "words"),
    [
        ("ModuleNotFoundError: No module named 'uvicorn'", "missing_dependency"),
        ("[Errno 48] error while attempting to bind on address: Address already in use", "port_in_use"),
        ("OSError: [Errno 28] No space left on device", "disk_full"),
        ("PermissionError: [Errno 13] Permission denied: '/x'", "home"),
        ("vestal: vestal.yaml:2: unknown key mlx.prot", "configuration"),
        ("something else", "recover --reset"),
    ],
)
def test_doctor_derives_the_remedy_for_an_early_death_from_the_last_log_lines(last_lines: str, words: str):
    death = EarlyDeath("mlx_server", "exit code 1", 1.4, 3)
    found = dies_at_start.assess_death(death, Path("/l/mlx_server.log"), last_lines)
    assert "1 s after its start, 3 times in a row: exit code 1" in found.sentence
    assert words in found.remedy
    assert last_lines in found.evidence


def test_doctor_reports_a_fault_if_the_host_agents_service_manager_job_keeps_exiting():
    found = dies_at_start.assess_job(JobState(True, "spawn scheduled", None, 412, "78: EX_CONFIG"), "")
    assert found
    assert "exit code 78 (a mistake in the settings) after 412 starts" in found.sentence


@pytest.mark.parametrize(
    "state",
    [
        JobState(),
        JobState(True, "running", 7, 412, "1"),
        JobState(True, "not running", None, 1, "0"),
        JobState(True, "not running", None, 3, "Terminated: 15"),
    ],
)
def test_doctor_reports_no_fault_for_a_job_of_an_agent_that_runs_or_was_stopped(state: JobState):
    assert dies_at_start.assess_job(state, "") is None
