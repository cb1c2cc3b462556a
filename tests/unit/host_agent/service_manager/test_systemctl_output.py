"""Parsing systemctl's output, on recorded outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_agent.service_manager.jobs import JobState
from host_agent.service_manager.systemctl_output import (
    is_user_manager_missing,
    parse_show,
    problem_sentence,
    user_manager_missing_sentence,
)

RECORDED = Path(__file__).resolve().parents[3] / "recorded" / "systemctl"


@pytest.mark.parametrize(
    ("name", "job"),
    [
        ("running", JobState(True, "active (running)", 4242, 3, "")),
        ("waiting_to_restart", JobState(True, "activating (auto-restart)", None, 4, "signal 9")),
        ("finished_pass", JobState(True, "inactive (dead)", None, 1, "1")),
        ("never_started", JobState(True, "inactive (dead)", None, None, "")),
        ("keeps_dying", JobState(True, "activating (auto-restart)", None, 8, "78")),
        ("timer", JobState(True, "active (waiting)", None, None, "")),
        ("not_found", JobState()),
    ],
)
def test_systemctl_show_is_parsed_with_state_pid_starts_and_last_exit(name: str, job: JobState):
    assert parse_show(0, (RECORDED / f"{name}.txt").read_text()) == job


def test_systemctl_show_of_a_timer_is_parsed_with_the_last_exit_of_its_service():
    assert parse_show(0, (RECORDED / "timer.txt").read_text(), "1").last_exit == "1"


@pytest.mark.parametrize(
    ("exit_code", "text"),
    [
        (1, "Failed to connect to bus: No medium found\n"),
        (1, "System has not been booted with systemd as init system (PID 1). Can't operate.\n"),
        (1, "Failed to connect to user scope bus via local transport: $DBUS_SESSION_BUS_ADDRESS and "
            "$XDG_RUNTIME_DIR not defined\n"),
        (127, "systemctl: No such file or directory"),
    ],
)  # fmt: skip
def test_missing_systemd_user_manager_is_detected_from_systemctl_output_and_reported_with_a_remedy(
    exit_code: int, text: str
):
    assert is_user_manager_missing(exit_code, text)
    assert "vestal up" in user_manager_missing_sentence(text) and "\n" not in user_manager_missing_sentence(
        text
    )


def test_other_systemctl_failures_are_not_mistaken_for_a_missing_user_manager():
    assert not is_user_manager_missing(1, "Failed to enable unit: Unit file x.service does not exist.")
    assert not is_user_manager_missing(0, "Version=252")


def test_systemctl_problem_sentence_has_the_command_and_its_output():
    command = ("systemctl", "--user", "enable", "x")
    assert (
        problem_sentence(command, 1, "Failed\nto enable") == "`systemctl --user enable x`: Failed to enable"
    )
    assert problem_sentence(command, 4, "") == "`systemctl --user enable x`: exit code 4"
