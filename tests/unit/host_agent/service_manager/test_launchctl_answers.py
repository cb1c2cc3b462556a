"""What launchctl's outputs mean, on outputs in its own form."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_agent.service_manager.job_state import JobState, in_words
from host_agent.service_manager.launchctl_answers import LaunchctlAnswer, judge, parse, sentence

RECORDED = Path(__file__).resolve().parents[3] / "recorded" / "launchctl"


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text()


def test_parse_of_a_running_job_takes_its_own_fields_and_not_its_coalitions():
    assert parse(0, recorded("running")) == JobState(True, "running", 44028, 1, "")


def test_parse_after_a_kill_names_the_signal():
    assert parse(0, recorded("running_after_a_kill")) == JobState(True, "running", 44102, 3, "Killed: 9")


def test_parse_between_two_passes_has_no_pid():
    assert parse(0, recorded("between_runs")) == JobState(True, "not running", None, 12, "0")


def test_parse_of_a_failed_spawn_keeps_the_name_of_the_code():
    job = parse(0, recorded("spawn_failed"))
    assert job == JobState(True, "spawn scheduled", None, 7, "78: EX_CONFIG")
    assert in_words(job) == "spawn scheduled, started 7 times, last exit 78: EX_CONFIG"


def test_parse_of_a_job_that_keeps_dying_gives_its_exit_code():
    job = parse(0, recorded("dying"))
    assert (job.pid, job.runs, job.exit_code) == (None, 412, 78)
    assert parse(0, recorded("running_after_a_kill")).exit_code is None, "a signal is no exit code"


def test_parse_of_an_unknown_job_is_not_loaded():
    assert parse(113, recorded("not_found")) == JobState()


@pytest.mark.parametrize(
    ("exit_code", "text", "answer"),
    [
        (0, "", LaunchctlAnswer.DONE),
        (5, "Bootstrap failed: 5: Input/output error\n", LaunchctlAnswer.RETRY),
        (5, "Boot-out failed: 5: Input/output error\n", LaunchctlAnswer.RETRY),
        (37, "Bootstrap failed: 37: Operation already in progress\n", LaunchctlAnswer.ALREADY),
        (36, "Boot-out failed: 36: Operation now in progress\n", LaunchctlAnswer.STOPPING),
        (3, "Boot-out failed: 3: No such process\n", LaunchctlAnswer.NOT_LOADED),
        (113, 'Could not find service "x" in domain for user gui: 501\n', LaunchctlAnswer.NOT_LOADED),
        (
            125,
            "Bootstrap failed: 125: Domain does not support specified action\n",
            LaunchctlAnswer.NO_SESSION,
        ),
        (112, "Bad request.\nCould not find domain for user gui: 501\n", LaunchctlAnswer.NO_SESSION),
        (119, "Bootstrap failed: 119: Service is disabled\n", LaunchctlAnswer.DISABLED),
        (1, "Boot-out failed: 1: Operation not permitted\n", LaunchctlAnswer.NOT_PERMITTED),
        (1, "Bootstrap failed: 125: unknown words\n", LaunchctlAnswer.NO_SESSION),
        (64, "Usage: launchctl bootstrap <domain-target>\n", LaunchctlAnswer.FAILED),
        (127, "launchctl: No such file or directory", LaunchctlAnswer.FAILED),
    ],
)
def test_judge_tells_what_to_do_from_code_and_words(exit_code: int, text: str, answer: LaunchctlAnswer):
    assert judge(exit_code, text) is answer


@pytest.mark.parametrize(
    "answer", [answer for answer in LaunchctlAnswer if answer is not LaunchctlAnswer.DONE]
)
def test_every_problem_is_one_line_that_says_what_happened(answer: LaunchctlAnswer):
    said = sentence(answer, "launchctl bootstrap gui/501 x", "Boot\nfailed: 9", "gui/501", "dev.vestal.agent")
    assert said and "\n" not in said


def test_sentence_without_a_session_offers_the_daemon():
    said = sentence(LaunchctlAnswer.NO_SESSION, "launchctl bootstrap", "", "gui/501", "dev.vestal.agent")
    assert "gui/501" in said and "vestal install --daemon" in said


def test_sentence_of_a_disabled_job_gives_the_command():
    said = sentence(LaunchctlAnswer.DISABLED, "launchctl bootstrap", "", "gui/501", "dev.vestal.agent")
    assert "`launchctl enable gui/501/dev.vestal.agent`" in said
