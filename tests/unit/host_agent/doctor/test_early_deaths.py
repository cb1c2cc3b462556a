"""Which services end right after their start, and what their last words mean."""

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


def test_find_of_two_ends_in_a_row_counts_them():
    events = [
        event(0, "child_started", 1),
        event(1, "child_exited", 1, "exit code 1"),
        event(3, "child_started", 2),
        event(5, "child_exited", 2, "exit code 1"),
    ]
    assert find(events) == [EarlyDeath("mlx_server", "exit code 1", 2.0, 2)]


def test_find_of_one_that_was_given_up_says_so_with_the_last_words():
    events = [
        event(0, "child_started", 1),
        event(1, "child_exited", 1, "exit code 78"),
        event(1, "child_gave_up", 0, "exit code 78: unknown key mlx.prot"),
    ]
    assert find(events) == [EarlyDeath("mlx_server", "exit code 78: unknown key mlx.prot", 1.0, 1, True)]


@pytest.mark.parametrize(
    "later",
    [
        [event(3, "child_started", 2), event(9, "child_ready", 2)],  # it came up after all
        [event(3, "child_stopped")],  # nobody wants it any more
        [event(3, "child_started", 2), event(90, "child_exited", 2, "exit code 1")],  # another fault
        [event(3, "child_started", 2), event(4, "child_exited", 2, "the supervisor stops")],
    ],
)
def test_find_of_what_came_up_or_was_stopped_tells_nothing(later: list[dict[str, Any]]):
    assert find([event(0, "child_started", 1), event(1, "child_exited", 1, "exit code 1"), *later]) == []


def test_find_of_a_program_that_cannot_be_run_names_it():
    (found,) = find([event(0, "child_launch_failed", 0, "No such file or directory: 'x'")])
    assert found.cause == "it cannot be run: No such file or directory: 'x'"


def test_find_of_an_end_without_its_start_tells_nothing():
    assert find([event(1, "child_exited", 1, "exit code 1")]) == []


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("ModuleNotFoundError: No module named 'uvicorn'", "missing_dependency"),
        ("[Errno 48] error while attempting to bind on address: Address already in use", "port_in_use"),
        ("OSError: [Errno 28] No space left on device", "disk_full"),
        ("PermissionError: [Errno 13] Permission denied: '/x'", "home"),
        ("vestal: vestal.yaml:2: unknown key mlx.prot", "configuration"),
        ("something else", "recover --reset"),
    ],
)
def test_last_words_lead_to_the_remedy(said: str, words: str):
    found = dies_at_start.judge(
        EarlyDeath("mlx_server", "exit code 1", 1.4, 3), Path("/l/mlx_server.log"), said
    )
    assert "1 s after its start, 3 times in a row: exit code 1" in found.sentence
    assert words in found.remedy
    assert said in found.evidence


def test_agent_that_its_service_manager_keeps_starting_is_told():
    found = dies_at_start.judge_job(JobState(True, "spawn scheduled", None, 412, "78: EX_CONFIG"), "")
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
def test_agent_that_runs_or_was_stopped_is_no_fault(state: JobState):
    assert dies_at_start.judge_job(state, "") is None
