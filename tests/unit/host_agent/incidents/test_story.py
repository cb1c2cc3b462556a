"""Journal entries as in real runs, folded into incidents and described in sentences."""

from __future__ import annotations

import pytest

from host_agent.incidents.ledger import REOPEN_WITHIN_S
from tests.unit.host_agent.incidents.written_story import Story


def killed_five_times() -> Story:
    """A journal in which the engine is killed five times within seconds, and its breaker opens for a
    minute.
    """
    story = Story()
    for second in (46, 50, 54, 58):
        story.at(second).dies("mlx_engine", parked=6).at(second + 2).ready("mlx_engine")
    story.at(62).write("mlx_server", "requests_parked", count=24, ids=[f"r{n}" for n in range(24)])
    story.write("mlx_engine", "child_exited", "killed by SIGKILL", pid=7, code=None, signal=9)
    story.write("mlx_engine", "breaker_opened", "5 restarts within 300 s", open_s=60.0, opens=1)
    story.at(122).write("mlx_engine", "breaker_half_opened")
    story.write("mlx_engine", "child_started", pid=9, restarts=5).at(125).ready("mlx_engine")
    return story.write("mlx_engine", "breaker_closed", "the trial start succeeded")


def test_five_engine_kills_in_eighty_seconds_are_one_incident_in_one_sentence():
    shown = killed_five_times().one()
    assert shown["sentence"] == (
        "05:23:46–05:25:05 the engine was killed five times (SIGKILL, sender unknown); "
        "the breaker opened for 60 s; 24 requests waited, none was lost."
    )
    assert shown["title"] == "The engine was killed five times"
    assert (shown["open"], shown["duration_s"], shown["severity"], shown["restarts"]) == (
        False,
        79,
        "fault",
        5,
    )
    assert (shown["services"], shown["id"], shown["first_seq"]) == (["mlx_engine"], 3, 2)
    assert "The engine was started again five times." in shown["done"]
    assert "The trial start of the engine succeeded." in shown["done"]


def test_open_incident_says_when_it_began_and_when_the_next_trial_start_is():
    story = Story().at(46)
    story.write("mlx_engine", "child_exited", "exit code 1", pid=7, code=1, signal=None)
    story.write("mlx_engine", "breaker_opened", "exit code 1", open_s=60.0, opens=1)
    shown = story.at(50).one()
    assert shown["sentence"] == (
        "Since 05:23:46 the engine failed (exit code 1); the breaker opened, "
        "and the next trial is at 05:24:46."
    )
    assert shown["open"] and shown["ended_at"] is None and shown["duration_s"] == 4


def opened_three_times(reset_at: float) -> Story:
    """A journal in which the engine's breaker opens for 60, 120 and 240 s. Its trial starts at 60 s and 180 s
    fail, and a person resets it at `reset_at`.
    """
    story = Story()
    for opened_at, open_s in ((0, 60), (60, 120), (180, 240)):
        if opened_at:
            story.at(opened_at).write("mlx_engine", "breaker_half_opened")
            story.write("mlx_engine", "child_started", pid=9, restarts=5)
        story.write("mlx_engine", "child_exited", "exit code 1", pid=9, code=1, signal=None)
        story.write("mlx_engine", "breaker_opened", "exit code 1", open_s=float(open_s), opens=1)
    return story.at(reset_at)


def test_incident_counts_the_time_for_which_the_breaker_was_open_and_not_the_planned_one():
    """Breakers of 60, 120 and 240 s, of which the third was reset, were 7 min in an incident of 4 min."""
    story = opened_three_times(reset_at=200.0)
    story.write("mlx_engine", "child_started", pid=10, restarts=0).at(203).ready("mlx_engine")
    assert "the breaker opened three times (for 3 min in all);" in story.one()["sentence"]
    assert "The breaker opened three times (for 3 min in all)." in story.one()["done"]


def test_incident_of_a_service_that_is_stopped_counts_the_breaker_until_the_stop():
    story = opened_three_times(reset_at=420.0)
    story.write("mlx_server", "stop_requested", "by hand")
    assert "the breaker opened three times (for 7 min in all)" in story.one()["sentence"]
    story = Story()
    story.write("mlx_engine", "breaker_opened", "exit code 1", open_s=60.0, opens=1)
    story.at(10).write("mlx_server", "stop_requested", "by hand")
    assert "the breaker opened for 10 s;" in story.one()["sentence"]


def test_breaker_whose_end_is_not_in_the_journal_counts_at_most_its_planned_time():
    story = Story()
    story.write("mlx_engine", "breaker_opened", "exit code 1", open_s=60.0, opens=1)
    assert "the breaker opened for 60 s" in story.at(3000).ready("mlx_engine").one()["sentence"]


def test_incident_whose_breaker_is_open_again_gives_no_duration_of_it():
    sentence = opened_three_times(reset_at=190.0).one()["sentence"]
    assert "the breaker opened three times, and the next trial is at 05:30:00" in sentence


@pytest.mark.parametrize(
    ("gap_s", "incidents"), [(REOPEN_WITHIN_S - 1, 1), (REOPEN_WITHIN_S + 1, 2), (3600, 2)]
)
def test_fault_soon_after_an_incident_joins_it_and_a_later_fault_opens_another_incident(gap_s, incidents):
    story = Story().at(0).dies("mlx_engine").at(2).ready("mlx_engine")
    story.at(2 + gap_s).dies("mlx_engine").at(4 + gap_s).ready("mlx_engine")
    assert [shown["open"] for shown in story.as_shown()] == [False] * incidents
    assert [shown["id"] for shown in story.as_shown()] == sorted({shown["id"] for shown in story.as_shown()})


def test_incident_counts_each_request_once_although_the_requests_wait_through_two_engine_deaths():
    story = Story().at(10).dies("mlx_engine", parked=3).at(12).ready("mlx_engine").at(13)
    for number in range(3):
        story.write("mlx_server", "request_resumed", id=f"r{number}.other", emitted=4, paused_ms=2.0)
    story.at(20).dies("mlx_engine", parked=3).at(22).ready("mlx_engine")
    assert story.one()["requests"] == {"waited": 3, "continued": 3, "lost": 0}
    story.write("mlx_server", "requests_lost", "killed again and again", count=1, ids=["r1"])
    shown = story.one()
    assert shown["requests"] == {"waited": 3, "continued": 2, "lost": 1}
    assert shown["sentence"].endswith("; 3 requests waited, 2 went on, one was lost.")
    story.write("mlx_server", "request_passed_on", "a peer serves it", id="r1", peer="http://other")
    assert story.one()["requests"] == {"waited": 3, "continued": 3, "lost": 0}


def test_incident_sentence_counts_requests_lost_so_far_in_addition_to_the_requests_still_waiting():
    story = Story().at(0).dies("mlx_engine", parked=3)
    story.write("mlx_server", "requests_lost", "it has not come back", count=2, ids=["q1", "q2"])
    assert story.one()["sentence"].endswith("; 5 requests waited, two were lost so far.")


def test_incident_sentence_of_a_killed_gateway_names_the_gateway_although_its_engine_ended_too():
    story = Story().at(0).ready("mlx_engine").ready("mlx_server")
    story.at(5).dies("mlx_server").at(6)
    story.write("mlx_engine", "child_adopted", pid=3, age_s=4.0)
    story.write("mlx_engine", "child_exited", "left over from an earlier supervisor", pid=3, signal=None)
    story.write("mlx_engine", "child_restarting", "left over from an earlier supervisor", delay_s=0.0)
    story.write("mlx_engine", "child_started", "left over from an earlier supervisor", pid=4, restarts=1)
    story.write("mlx_server", "answers_taken_up", "an earlier gateway left them", count=4)
    story.at(8).ready("mlx_server")
    assert story.one()["open"], "the engine is not ready yet"
    story.at(9).ready("mlx_engine")
    shown = story.one()
    assert shown["sentence"] == (
        "05:23:05–05:23:09 the gateway was killed (SIGKILL, sender unknown); "
        "4 requests waited, none was lost."
    )
    assert shown["services"] == ["mlx_server"]


def test_upgrade_of_the_gateway_opens_no_incident():
    story = Story().at(0).ready("mlx_server").ready("mlx_engine").at(100)
    story.write("mlx_server", "gateway_outdated", "its code has changed").write(
        "mlx_server", "handover_began"
    )
    story.write("mlx_server", "child_replaced", "it takes over", pid=9, predecessor=8)
    story.write("mlx_engine", "child_exited", "the supervisor stops", pid=4, code=0, signal=None)
    story.write("mlx_engine", "child_stopped", "the supervisor stops")
    story.write("mlx_engine", "child_started", "the supervisor started", pid=5, restarts=0)
    story.ready("mlx_engine").ready("mlx_server")
    story.write("agent", "agent_outdated").write("agent", "agent_replacing")
    story.write("agent", "agent_started").write("mlx_server", "child_adopted", pid=9, age_s=3.0)
    assert story.ready("mlx_server").as_shown() == []


def test_engine_restarted_by_hand_opens_no_incident():
    story = Story().at(0).ready("mlx_engine").at(50).write("mlx_engine", "restart_requested", "by hand")
    assert story.dies("mlx_engine", signal=15).at(52).ready("mlx_engine").as_shown() == []
    story.at(53).dies("mlx_engine").at(55).ready("mlx_engine")
    assert story.one()["title"] == "The engine was killed", "the restart by hand is over"


def test_engine_killed_after_a_finished_restart_by_hand_opens_an_incident():
    story = Story().at(0).ready("mlx_server").ready("mlx_engine").at(12)
    story.write("mlx_engine", "restart_requested", "by hand").at(20)
    story.write("mlx_server", "restart_requested", "by hand").at(25)
    story.write("mlx_engine", "child_exited", "the supervisor stops", pid=1, code=0, signal=None)
    story.write("mlx_engine", "child_stopped", "the supervisor stops").at(26)
    story.write("mlx_server", "child_exited", "restarted by hand", pid=2, code=None, signal=None)
    story.write("mlx_server", "child_restarting", "restarted by hand", delay_s=0.0)
    story.write("mlx_server", "child_started", "restarted by hand", pid=3, restarts=1).at(29)
    story.write("mlx_engine", "child_started", "the supervisor started", pid=4, restarts=0)
    assert story.as_shown() == []
    assert story.at(35).dies("mlx_engine").one()["title"] == "The engine was killed"


def test_incident_of_an_engine_killed_by_hand_says_that_a_person_killed_it():
    story = Story().at(0).ready("mlx_engine").at(50).write("mlx_engine", "kill_requested", "by hand")
    shown = story.dies("mlx_engine", parked=1).at(52).ready("mlx_engine").one()
    assert shown["sentence"] == (
        "05:23:50–05:23:52 the engine was killed (SIGKILL by a person); one request waited, and was not lost."
    )


def test_incident_of_an_engine_killed_by_the_kernel_names_memory_as_the_cause():
    story = Story().at(0).write("mlx_engine", "child_exited", "killed by SIGKILL", code=None, signal=9)
    story.write("mlx_server", "engine_killed_for_memory").write("mlx_engine", "child_restarting", attempt=0)
    assert "SIGKILL by the kernel, for want of memory" in story.one()["sentence"]


def test_stop_by_hand_opens_no_incident_and_ends_one_that_is_already_open_for_the_service():
    story = Story().at(0).ready("mlx_server").at(5).write("mlx_server", "stop_requested", "by hand")
    story.write("mlx_server", "child_exited", "stopped by hand", pid=7, code=0, signal=None)
    assert story.write("mlx_server", "child_stopped", "stopped by hand").as_shown() == []
    story.at(40).write("mlx_server", "child_started", "started by hand", restarts=0).ready("mlx_server")
    story.at(50).dies("mlx_server").at(51).write("mlx_server", "stop_requested", "by hand")
    shown = story.one()
    assert not shown["open"]
    assert shown["sentence"].endswith("; a person stopped the gateway.")


def test_command_vestal_down_ends_open_incidents_and_the_next_start_opens_none():
    story = Story().at(0).write("agent", "agent_started").at(5).dies("mlx_server")
    story.at(9).write("agent", "agent_stopping").write("mlx_server", "child_exited", "the supervisor stops")
    story.write("mlx_server", "child_stopped").write("agent", "agent_stopped")
    story.at(500).write("watchdog", "child_started").ready("watchdog").write("agent", "agent_started")
    story.write("mlx_server", "child_started", "the supervisor started").ready("mlx_server")
    assert story.one()["sentence"].endswith("; Vestal was stopped.")


def test_adopted_watchdog_that_the_command_vestal_down_ends_before_the_agent_opens_no_incident():
    story = Story().at(0).write("agent", "agent_started").ready("watchdog").at(500)
    story.dies("watchdog", signal=None).ready("watchdog").at(501).write("agent", "agent_stopping")
    assert story.as_shown() == []
    story.at(900).write("agent", "agent_started").ready("watchdog").at(950).dies("watchdog")
    assert story.at(990).write("agent", "agent_stopping").one()["title"] == "The watchdog was killed"


def test_incident_names_a_dead_agent_and_the_services_that_ended_while_no_agent_ran():
    story = Story().at(0).write("agent", "agent_started").ready("watchdog").ready("mlx_server")
    story.at(100).write("watchdog", "child_adopted", pid=3).ready("watchdog")
    story.write("agent", "agent_started", booted_at=-50.0)
    story.write("mlx_server", "child_started", "the supervisor started", pid=9, restarts=0)
    story.at(102).ready("mlx_server")
    shown = story.one()
    assert shown["sentence"] == (
        "05:24:40–05:24:42 the agent ended without being stopped (killed, or it crashed); "
        "the gateway ended while no agent watched it."
    )
    assert shown["services"] == ["agent", "mlx_server"]
    assert shown["restarts"] == 2


@pytest.mark.parametrize(("last_alive_at", "duration_s"), [(70.0, 30), (900.0, 0), ("x", 0), (None, 0)])
def test_incident_of_a_dead_agent_lasts_from_its_last_sign_of_life_to_the_next_start(
    last_alive_at, duration_s
):
    """The incident of an agent that had been dead for half a minute once "lasted 0 s"."""
    story = Story().at(0).write("agent", "agent_started").ready("mlx_server")
    story.at(100).write("agent", "agent_started", last_alive_at=last_alive_at)
    shown = story.one()
    assert (shown["duration_s"], shown["began_at"], shown["open"]) == (duration_s, 100 - duration_s, False)


def test_restart_of_the_machine_is_one_incident_with_one_sentence():
    story = (
        Story().at(10).write("agent", "agent_started", booted_at=0.0).ready("watchdog").ready("mlx_server")
    )
    story.at(500).write("watchdog", "child_started").ready("watchdog")
    story.write("agent", "agent_started", booted_at=450.0)
    story.write("mlx_server", "child_started").at(503).ready("mlx_server")
    assert story.one()["sentence"] == (
        "05:31:20–05:31:23 the agent ended with the machine, which restarted without a shutdown of Vestal."
    )


def test_incident_counts_a_hung_process_once_although_its_exit_and_restart_follow():
    story = Story().at(0).ready("mlx_engine").at(30)
    story.write("mlx_engine", "health_failed", "wedged: no sign of life for 6 s", pid=4, failures=1)
    story.at(36).write("mlx_engine", "child_killed", "it hangs").dies("mlx_engine").at(38).ready("mlx_engine")
    shown = story.one()
    assert shown["sentence"] == (
        "05:23:30–05:23:38 the engine hung (wedged: no sign of life for 6 s); no request was running."
    )
    assert "The engine did not end when asked, and was killed." in shown["done"]


def test_incident_of_a_container_killed_for_memory_closes_when_docker_reports_it_healthy():
    story = Story().at(0)
    cause = "killed by the kernel: over its limit of 2.0 GiB; raise VESTAL_ORCHESTRATOR__MEM_LIMIT"
    story.write("orchestrator", "container_died", cause, exit_code=137, reason="out_of_memory")
    assert story.one()["open"]
    story.at(8).write("orchestrator", "container_healthy")
    shown = story.one()
    assert shown["sentence"] == f"05:23:00–05:23:08 the orchestrator ran out of memory ({cause})."
    assert shown["restarts"] == 1


def test_incident_of_a_container_killed_through_docker_is_described_without_nested_brackets():
    cause = "killed by a request to the Docker engine (exit code 137)"
    story = Story().at(0).write("orchestrator", "container_died", cause, reason="killed_by_request")
    assert story.one()["sentence"] == (
        "Since 05:23:00 the orchestrator was killed (by a request to the Docker engine, exit code 137)."
    )


def test_container_stopped_by_a_person_opens_no_incident():
    story = Story().at(0).write("nightly", "container_died", "stopped by a person", reason="stopped")
    assert story.as_shown() == []


def test_recovery_pass_opens_an_incident_of_unhealthy_services_and_closes_it_once_all_are_well():
    story = Story().at(0)
    left = {"ollama": "Ollama is installed and does not run; start its app", "docker": "it does not answer"}
    story.write(
        "recovery", "recovery_finished", healthy=False, faults=left, unhealthy=["docker", "ollama", "nightly"]
    )
    assert story.one()["services"] == ["ollama", "docker"]
    story.at(300).write("recovery", "recovery_finished", healthy=False, faults=left, unhealthy=["ollama"])
    assert story.one()["open"], "Ollama is not well yet"
    story.at(600).write("recovery", "recovery_finished", healthy=True, faults={}, unhealthy=[])
    assert not story.one()["open"]
    story.at(900).write("recovery", "recovery_finished", "left: agent: skipped", healthy=False)
    assert len(story.as_shown()) == 1, "a pass that did not look says nothing"


def test_first_recovery_pass_that_starts_containers_opens_no_incident():
    story = Story().at(0).write("agent", "agent_started")
    story.at(2).write("orchestrator", "remedy_applied", "is stopped", remedy="bring its container up")
    story.at(9).write("recovery", "recovery_finished", healthy=True, faults={}, unhealthy=[])
    assert story.as_shown() == []
    story.at(400).write("orchestrator", "remedy_applied", "is stopped", remedy="bring its container up")
    shown = story.one()
    assert shown["sentence"] == "Since 05:29:40 the orchestrator was found not to work (is stopped)."
    assert shown["done"] == ["A recovery pass acted on the orchestrator: bring its container up."]


def test_incident_of_a_fault_is_not_closed_by_a_recovery_pass_whose_checks_came_before_the_fault():
    story = Story().at(10).write("mlx_server", "health_failed", "no answer")
    story.at(10.5).write("recovery", "recovery_finished", healthy=True, faults={}, unhealthy=[])
    assert story.one()["open"]


@pytest.mark.parametrize("failure", ["health_failed", "child_start_timed_out"])
@pytest.mark.parametrize("stopped", [("agent", "agent_stopping"), ("mlx_server", "stop_requested")])
def test_engine_that_dies_after_an_earlier_engine_hung_and_was_stopped_is_an_incident_of_its_own(
    failure: str, stopped: tuple[str, str]
):
    """The death was once taken for the hang, which a closed incident had counted: its own had no part."""
    story = Story().at(0).ready("mlx_engine").at(10).write("mlx_engine", failure, "no answer")
    story.at(13).write(*stopped).write("mlx_server", "child_stopped")
    story.at(100).write("mlx_engine", "child_started").at(101).dies("mlx_engine")
    first, second = story.as_shown()
    assert (first["open"], first["services"]) == (False, ["mlx_engine"])
    assert (second["open"], second["title"]) == (True, "The engine was killed")
    assert not story.ready("mlx_engine").as_shown()[1]["open"]


@pytest.mark.parametrize("outcome", ["child_restarting", "breaker_opened", "child_gave_up"])
def test_hang_whose_incident_was_closed_before_the_restart_is_an_incident_again(outcome: str):
    story = Story().at(10).write("mlx_engine", "health_failed", "no answer")
    story.at(80).write("recovery", "recovery_finished", healthy=True)
    story.at(110).write("mlx_engine", outcome, "exit code 1", attempt=1)
    assert [(shown["open"], shown["services"]) for shown in story.as_shown()] == [
        (False, ["mlx_engine"]),
        (True, ["mlx_engine"]),
    ]


def test_finding_that_only_a_reboot_helps_a_service_already_unhealthy_is_a_change_of_its_incident():
    """An open page and the notifier, which follow the changes, once missed it."""
    story = Story().at(0).dies("mlx_engine")
    entry = {"seq": 9, "ts": 5.0, "component": "mlx_engine", "event": "only_a_reboot_helps", "fields": {}}
    assert [incident.urgency for incident in story.fold.add(entry)] == ["only_a_reboot_helps"]


def test_unrelated_services_that_fail_hours_apart_are_two_incidents_even_if_one_stays_open():
    story = Story().at(0)
    story.write("ollama", "child_gave_up", "exit code 78", code=78)
    story.at(7200).dies("mlx_engine").at(7202).ready("mlx_engine")
    first, second = story.as_shown()
    assert (first["open"], first["title"]) == (True, "Ollama cannot start")
    assert (second["open"], second["title"]) == (False, "The engine was killed")


def test_full_disk_is_an_incident_until_writing_works_again():
    story = Story().at(0).write("agent", "disk_not_writable", "Files in /home cannot be written since 05:23.")
    assert story.one()["sentence"] == "Since 05:23:00 the disk could not be written."
    story.at(30).write("agent", "disk_writable_again", "lost since the start: nothing")
    assert story.one()["causes"][1] == "Files in /home cannot be written since 05:23."
    assert not story.one()["open"]


def test_damaged_journal_is_an_incident_of_severity_notice_that_is_over_at_once():
    story = Story().at(3).write("agent", "journal_replaced", "The journal was replaced: it was damaged.")
    shown = story.one()
    assert (shown["open"], shown["severity"], shown["duration_s"]) == (False, "notice", 0)


def test_incident_just_after_the_machine_woke_names_the_sleep_as_a_cause():
    story = Story().at(0).write("agent", "machine_woke", slept_s=3600.0).at(3).dies("mlx_engine")
    assert "The machine had just woken from 3600 s of sleep." in story.one()["causes"]


def test_incident_during_which_the_clock_was_set_back_has_no_negative_duration():
    story = Story().at(7200).dies("mlx_engine").at(10).ready("mlx_engine")
    assert story.one()["duration_s"] == 0
    story.at(12).dies("mlx_engine").at(14).ready("mlx_engine")
    assert [shown["duration_s"] for shown in story.as_shown()] == [0, 2]


def test_agent_killed_before_the_clock_was_set_forward_is_no_restart_of_the_machine():
    """On Linux, the time of the boot moves with the clock: the machine seemed to have restarted."""
    story = Story().at(60).write("agent", "agent_started", booted_at=1.0, boot_id="one")
    story.at(7260).write("agent", "agent_started", booted_at=3601.0, boot_id="one")
    assert "killed, or it crashed" in story.one()["sentence"]


def test_restart_of_a_machine_whose_clock_was_set_back_is_described_as_a_restart():
    """The agent seemed to have been killed, as the machine had booted before the agent's last start."""
    story = Story().at(100_000).write("agent", "agent_started", booted_at=99_000.0, boot_id="one")
    story.at(20_000).write("agent", "agent_started", booted_at=19_900.0, boot_id="two")
    assert "which restarted without a shutdown of Vestal" in story.one()["sentence"]


@pytest.mark.parametrize(("before", "after"), [("", "two"), ("one", ""), (None, 7)])
def test_restart_of_the_machine_is_recognized_by_its_boot_time_if_a_boot_id_is_missing(before, after):
    story = Story().at(10).write("agent", "agent_started", booted_at=1.0, boot_id=before)
    story.at(500).write("agent", "agent_started", booted_at=450.0, boot_id=after)
    assert "which restarted without a shutdown of Vestal" in story.one()["sentence"]
