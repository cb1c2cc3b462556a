"""What a recovery pass finds, does and reports, as incidents tell it."""

from __future__ import annotations

from typing import Any

import pytest

from host_agent.incidents import related
from host_agent.incidents.reading.recovery import BY_PASS
from host_agent.recovery import apply_remedies
from host_agent.recovery.remedies import ReplaceHungChild
from host_agent.services.docker import compose
from host_agent.services.docker.exit_cause import ContainerExitEvidence, explain
from tests.unit.host_agent.incidents.written_story import Story

CHECKED = [
    "agent",
    "mlx_server",
    "mlx_engine",
    "ollama",
    "docker",
    "orchestrator",
    "nightly",
    "worker",
    "memory",
]
SHORT = "78% of the machine's memory is wired down"


def finish_pass(
    story: Story,
    *,
    checked_seq: int,
    checked: Any = CHECKED,
    healthy: bool | None = None,
    **unhealthy: str,
) -> Story:
    """Write the entry of a pass whose last check began after the journal entry `checked_seq`, and found the
    services in `unhealthy`. Memory that runs short does not make a service unhealthy. `healthy` says that
    every service is healthy although some have an issue.
    """
    if healthy is None:
        healthy = not unhealthy.keys() - {"memory"}
    return story.write(
        "recovery",
        "recovery_finished",
        healthy=healthy,
        unhealthy=sorted(unhealthy),
        faults=unhealthy,
        checked=checked,
        checked_seq=checked_seq,
    )


def stop_container(story: Story, by: str, exit_code: int = 137) -> Story:
    found = explain(ContainerExitEvidence(exit_code=exit_code, stopped_by=by, stop_request_age_s=3.0))
    return story.write(
        "orchestrator", "container_died", found.sentence, reason=str(found.cause), stopped_by=by
    )


def test_memory_that_only_a_reboot_frees_is_one_open_incident_although_every_service_is_healthy():
    """Each second pass once ended the incident and sent "Memory is well again", until the reboot."""
    story = Story()
    for at in range(0, 1800, 300):
        story.at(at).write("memory", "only_a_reboot_helps", SHORT)
        finish_pass(story.at(at + 1), checked_seq=story.seq, memory=SHORT)
        finish_pass(story.at(at + 9), checked_seq=story.seq, memory=SHORT)
        assert story.one()["open"]
    finish_pass(story.at(1900), checked_seq=story.seq)
    assert not story.one()["open"]


def test_fault_mended_within_a_second_by_a_recovery_pass_ends_with_that_pass():
    """Its incident once stayed open until the next scheduled pass, and a false notice came after a minute."""
    story = Story().at(0).write("orchestrator", "remedy_applied", "is paused", remedy="unpause its container")
    assert story.one()["open"]
    finish_pass(story.at(0.9), checked_seq=story.seq)
    assert not story.one()["open"]


def test_fault_after_the_last_check_of_a_recovery_pass_is_not_ended_by_that_pass():
    """A check that took longer than 2 s once ended the faults that it could not have seen."""
    story = Story().at(0).write("orchestrator", "remedy_applied", "is paused", remedy="unpause its container")
    checked_seq = story.seq
    story.at(1).write("orchestrator", "container_unhealthy")
    finish_pass(story.at(6), checked_seq=checked_seq)
    assert story.one()["open"]
    finish_pass(story.at(300), checked_seq=story.seq)
    assert not story.one()["open"]


def test_recovery_pass_that_ends_after_the_clock_was_set_back_ends_the_faults_that_it_mended():
    story = Story().at(7200).write("mlx_server", "health_failed", "no answer").at(7201)
    finish_pass(story.at(3599.5), checked_seq=story.seq)
    assert not story.one()["open"]


@pytest.mark.parametrize("event", ["container_unhealthy", "container_died"])
def test_fault_of_a_service_that_a_recovery_pass_does_not_check_is_not_ended_by_that_pass(event: str):
    """Docker reports on every container of the project, also on a database that a person has added to it."""
    story = Story().at(0).write("postgres", event, reason="killed_by_request")
    finish_pass(story.at(4.5), checked_seq=story.seq)
    assert story.one()["open"]
    assert not story.at(9).write("postgres", "container_healthy").one()["open"]


def test_fault_of_a_service_that_no_recovery_pass_checks_ends_with_the_agent_that_watched_it():
    """The next agent does not record that the service is healthy again, so the incident would stay open."""
    story = Story().at(0).write("agent", "agent_started").at(50).write("postgres", "container_unhealthy")
    story.write("agent", "agent_replacing").at(90).write("agent", "agent_started")
    assert story.one()["sentence"].endswith("; the agent that watched it has ended.")


def test_fault_of_a_worker_outlasts_the_agent_until_a_recovery_pass_finds_every_worker_healthy():
    """Each restart of the agent once ended it, and sent a false notice: "Worker is well again"."""
    assert related.WORKER == compose.WORKER
    story = Story().at(0).write("agent", "agent_started").at(50).write("worker", "container_unhealthy")
    story.write("agent", "agent_replacing").at(90).write("agent", "agent_started")
    assert story.one()["open"]
    finish_pass(story.at(95), checked_seq=story.seq, worker="is unhealthy (container 0123)")
    assert story.one()["open"]
    finish_pass(story.at(395), checked_seq=story.seq)
    assert not story.one()["open"]


def test_fault_of_a_healthy_ollama_ends_although_a_runner_is_left_that_the_agent_may_not_end():
    """Such a runner is an issue of Ollama's, and the incident once stayed open until a person ended it."""
    story = Story().at(0).write("ollama", "health_failed", "no answer")
    finish_pass(story.at(60), checked_seq=story.seq, healthy=True, ollama="`sudo kill 9` ends it")
    assert not story.one()["open"]


@pytest.mark.parametrize("checked", [None, "mlx_server", 7])
def test_recovery_pass_of_an_earlier_version_which_does_not_list_its_checks_ends_every_fault(checked: Any):
    story = Story().at(0).write("mlx_server", "health_failed", "no answer")
    finish_pass(story.at(60), checked_seq=0, checked=checked)
    assert not story.one()["open"]


def test_container_restarted_by_a_recovery_pass_stays_unhealthy_until_docker_calls_it_healthy():
    """The end of the hung container once ended the incident: "the orchestrator was stopped"."""
    assert BY_PASS == apply_remedies.BY_PASS
    story = Story().at(0).write("orchestrator", "container_unhealthy").at(4)
    story.write("orchestrator", "remedy_applied", "it does not answer", remedy="restart its container")
    stop_container(story.at(9), apply_remedies.BY_PASS)
    shown = story.at(20).one()
    assert shown["open"] and shown["last_seq"] == story.seq and "was stopped" not in shown["sentence"]
    assert not story.at(40).write("orchestrator", "container_healthy").one()["open"]


def test_unhealthy_container_that_a_person_restarts_stays_unhealthy_until_docker_calls_it_healthy():
    story = Story().at(0).write("orchestrator", "container_unhealthy").at(4)
    stop_container(story.write("orchestrator", "restart_requested", "by hand").at(9), "a person")
    assert story.one()["open"] and "A person restarted the orchestrator." in story.one()["done"]


@pytest.mark.parametrize("by", ["", "a person"])
def test_unhealthy_container_that_a_person_stops_is_no_open_incident(by: str):
    """A `docker stop` soon after a restart by hand is a stop, although a person had asked for a restart."""
    asked = "stop_requested" if by else "restart_requested"
    story = (
        Story()
        .at(0)
        .write("orchestrator", asked, "by hand")
        .at(9)
        .write("orchestrator", "container_unhealthy")
    )
    stop_container(story.at(20), by)
    assert not story.one()["open"]


def test_healthy_container_that_a_recovery_pass_restarts_opens_no_incident():
    assert stop_container(Story().at(0), apply_remedies.BY_PASS).as_shown() == []


@pytest.mark.parametrize(("code", "signal"), [(0, None), (None, 15), (None, 9)])
def test_hung_process_that_a_recovery_pass_ends_counts_as_one_failure(code: int | None, signal: int | None):
    """Its end by the pass once counted as a second failure: "terminated (SIGTERM, sender unknown)"."""
    story = Story().at(0).ready("mlx_server").at(500)
    remedy, found = str(ReplaceHungChild("mlx_server", 7)), "runs (PID 7) and does not answer"
    story.write("mlx_server", "remedy_applied", found, remedy=remedy).at(503)
    shown = story.dies("mlx_server", signal=signal, code=code).at(506).ready("mlx_server").one()
    assert shown["title"] == "The gateway was found not to work"
    assert shown["sentence"].endswith(f" the gateway was found not to work ({found}).")
    story.at(900).dies("mlx_server").ready("mlx_server")
    assert story.as_shown()[1]["title"] == "The gateway was killed", "the next death counts"


def test_process_that_dies_after_a_remedy_that_ended_another_process_counts_as_a_failure():
    story = Story().at(0).ready("ollama").at(500)
    story.write("ollama", "remedy_applied", "a runner is left", remedy="end the runner left behind (PID 9)")
    shown = story.at(505).dies("ollama").ready("ollama").one()
    assert "was killed (SIGKILL, sender unknown)" in shown["sentence"]
