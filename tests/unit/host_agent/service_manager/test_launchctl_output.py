"""Parsing and classifying launchctl's output, on recorded outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_agent.service_manager.jobs import JobState
from host_agent.service_manager.launchctl_output import (
    LaunchctlOutcome,
    classify,
    parse_print,
    problem_sentence,
)

RECORDED = Path(__file__).resolve().parents[3] / "recorded" / "launchctl"


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text()


def test_launchctl_print_of_a_running_job_is_parsed_without_the_fields_of_its_coalitions():
    assert parse_print(0, recorded("running")) == JobState(True, "running", 44028, 1, "")


def test_launchctl_print_after_a_kill_is_parsed_with_the_signal_as_last_exit():
    assert parse_print(0, recorded("running_after_a_kill")) == JobState(
        True, "running", 44102, 3, "Killed: 9"
    )


def test_launchctl_print_of_a_periodic_job_between_two_runs_is_parsed_without_a_pid():
    assert parse_print(0, recorded("between_runs")) == JobState(True, "not running", None, 12, "0")


def test_launchctl_print_of_a_failed_spawn_is_parsed_with_the_name_of_the_exit_code():
    job = parse_print(0, recorded("spawn_failed"))
    assert job == JobState(True, "spawn scheduled", None, 7, "78: EX_CONFIG")
    assert job.describe() == "spawn scheduled, started 7 times, last exit 78: EX_CONFIG"


def test_launchctl_print_of_a_job_that_keeps_exiting_is_parsed_with_its_exit_code():
    job = parse_print(0, recorded("dying"))
    assert (job.pid, job.runs, job.exit_code) == (None, 412, 78)
    assert parse_print(0, recorded("running_after_a_kill")).exit_code is None, "a signal is not an exit code"


def test_launchctl_print_of_an_unknown_job_is_parsed_as_not_loaded():
    assert parse_print(113, recorded("not_found")) == JobState()


@pytest.mark.parametrize(
    ("exit_code", "text", "outcome"),
    [
        (0, "", LaunchctlOutcome.DONE),
        (5, "Bootstrap failed: 5: Input/output error\n", LaunchctlOutcome.RETRY),
        (5, "Boot-out failed: 5: Input/output error\n", LaunchctlOutcome.RETRY),
        (37, "Bootstrap failed: 37: Operation already in progress\n", LaunchctlOutcome.ALREADY),
        (36, "Boot-out failed: 36: Operation now in progress\n", LaunchctlOutcome.STOPPING),
        (3, "Boot-out failed: 3: No such process\n", LaunchctlOutcome.NOT_LOADED),
        (113, 'Could not find service "x" in domain for user gui: 501\n', LaunchctlOutcome.NOT_LOADED),
        (
            125,
            "Bootstrap failed: 125: Domain does not support specified action\n",
            LaunchctlOutcome.NO_SESSION,
        ),
        (112, "Bad request.\nCould not find domain for user gui: 501\n", LaunchctlOutcome.NO_SESSION),
        (119, "Bootstrap failed: 119: Service is disabled\n", LaunchctlOutcome.DISABLED),
        (1, "Boot-out failed: 1: Operation not permitted\n", LaunchctlOutcome.NOT_PERMITTED),
        (1, "Bootstrap failed: 125: unknown words\n", LaunchctlOutcome.NO_SESSION),
        (64, "Usage: launchctl bootstrap <domain-target>\n", LaunchctlOutcome.FAILED),
        (127, "launchctl: No such file or directory", LaunchctlOutcome.FAILED),
    ],
)
def test_launchctl_outcome_such_as_not_loaded_or_no_session_is_read_from_exit_code_and_message(
    exit_code: int, text: str, outcome: LaunchctlOutcome
):
    assert classify(exit_code, text) is outcome


@pytest.mark.parametrize(
    "outcome", [outcome for outcome in LaunchctlOutcome if outcome is not LaunchctlOutcome.DONE]
)
def test_launchctl_problem_sentence_of_every_outcome_is_one_line(outcome: LaunchctlOutcome):
    said = problem_sentence(
        outcome, "launchctl bootstrap gui/501 x", "Boot\nfailed: 9", "gui/501", "dev.vestal.agent"
    )
    assert said and "\n" not in said


def test_launchctl_problem_sentence_without_a_login_session_offers_the_launch_daemon():
    said = problem_sentence(
        LaunchctlOutcome.NO_SESSION, "launchctl bootstrap", "", "gui/501", "dev.vestal.agent"
    )
    assert "gui/501" in said and "vestal install --daemon" in said


def test_launchctl_problem_sentence_of_a_disabled_job_has_the_command_that_enables_it():
    said = problem_sentence(
        LaunchctlOutcome.DISABLED, "launchctl bootstrap", "", "gui/501", "dev.vestal.agent"
    )
    assert "`launchctl enable gui/501/dev.vestal.agent`" in said
