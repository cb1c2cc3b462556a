"""What systemctl's outputs mean, on outputs in its own form."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_agent.service_manager.job_state import JobState
from host_agent.service_manager.systemctl_answers import failure, has_no_manager, no_manager, parse

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
def test_parse_of_show(name: str, job: JobState):
    assert parse(0, (RECORDED / f"{name}.txt").read_text()) == job


def test_timer_shows_the_last_exit_of_its_service():
    assert parse(0, (RECORDED / "timer.txt").read_text(), "1").last_exit == "1"


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
def test_machine_without_a_user_manager_is_told_what_to_do(exit_code: int, text: str):
    assert has_no_manager(exit_code, text)
    assert "vestal up" in no_manager(text) and "\n" not in no_manager(text)


def test_another_failure_is_no_missing_manager():
    assert not has_no_manager(1, "Failed to enable unit: Unit file x.service does not exist.")
    assert not has_no_manager(0, "Version=252")


def test_failure_names_the_command_and_what_it_said():
    command = ("systemctl", "--user", "enable", "x")
    assert failure(command, 1, "Failed\nto enable") == "`systemctl --user enable x`: Failed to enable"
    assert failure(command, 4, "") == "`systemctl --user enable x`: exit code 4"
