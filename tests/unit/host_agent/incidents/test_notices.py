"""Which incidents a person is notified of, when, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from host_agent.incidents import Incident
from host_agent.incidents.fold import IncidentFold
from host_agent.incidents.ledger import REOPEN_WITHIN_S
from host_agent.notifications.notices import LASTS_S, LATE_S, Notice, due, next_due_in_s


class Watch:
    """A journal with a settable clock, and the notices that are due about its incidents. `open_s` is for how
    long the incidents have been open; by the clock if it is None.
    """

    def __init__(self) -> None:
        self.fold, self.seq, self.now, self.sent = IncidentFold(), 0, 0.0, list[Notice]()
        self.open_s: float | None = None

    def write(self, event: str, component: str = "mlx_engine", cause: str = "", **fields: Any) -> Watch:
        self.seq += 1
        head = {"seq": self.seq, "ts": self.now, "component": component, "event": event, "cause": cause}
        self.fold.add(head | {"fields": fields})
        return self

    def at(self, now: float) -> Watch:
        self.now = now
        return self

    def notices(self) -> list[Notice]:
        """Return the notices that are due, and record them as delivered."""
        found = due(self.fold.ledger.incidents, lambda ts: f"{ts:g}", self.now, self.lasted_s)
        for notice in found:
            self.write("notice_delivered", "notifications", incident=notice.incident, over=notice.over)
        self.sent += found
        return found

    def next_in_s(self) -> float:
        return next_due_in_s(self.fold.ledger.incidents, self.now, self.lasted_s)

    def lasted_s(self, incident: Incident) -> float:
        return self.now - incident.began_at if self.open_s is None else self.open_s


def breaker_after(events: int) -> Watch:
    """Return a watch whose engine's breaker opens after this number of journal entries."""
    watch = Watch().at(5)
    watch.seq = events
    watch.write("child_exited", signal=11, code=None)
    return watch.write("breaker_opened", cause="killed by SIGSEGV", open_s=60)


def breaker() -> Watch:
    return breaker_after(events=0)


def test_notice_of_an_engine_ended_by_sigill_explains_the_unknown_instruction():
    """An OpenBLAS that was built for AVX-512 alone ended the engine by SIGILL on other processors."""
    watch = Watch().at(5).write("child_exited", signal=4, code=None)
    watch.write("breaker_opened", cause="killed by SIGILL", open_s=60)
    (notice,) = watch.notices()
    assert "crashed (SIGILL: a library has an instruction that this processor lacks)" in notice.text


def test_open_breaker_sends_one_notice_with_the_remedy_and_one_when_it_has_closed():
    watch = breaker()
    (notice,) = watch.notices()
    assert (notice.service, notice.event, notice.title) == (
        "mlx_engine",
        "breaker_opened",
        "The engine keeps failing",
    )
    assert notice.text.startswith(
        "Since 5 the engine crashed (SIGSEGV); the breaker opened, and the next trial"
    )
    assert "vestal recover --reset" in notice.text
    assert notice.as_json()["text"] == f"{notice.title}: {notice.text}"
    assert (notice.as_json()["incident"], notice.ts, notice.over) == (2, 5, False)
    assert watch.at(500).notices() == []
    watch.write("child_ready")
    assert watch.notices() == [], "it may fail again at once"
    (end,) = watch.at(500 + REOPEN_WITHIN_S).notices()
    assert (end.title, end.event, end.over) == ("The engine is well again", "child_ready", True)
    assert end.incident == notice.incident
    assert watch.at(9000).notices() == []


def test_breaker_that_opens_repeatedly_in_one_incident_sends_two_notices_in_all():
    watch = breaker()
    for at in range(65, 1000, 20):
        watch.at(at).write("child_ready").notices()
        watch.at(at + 5).write("child_exited", signal=9).write("breaker_opened", open_s=60).notices()
    watch.at(1100).write("child_ready").notices()
    watch.at(1200).notices()
    assert [notice.over for notice in watch.sent] == [False, True]


def test_engine_that_restarts_within_a_second_sends_no_notice():
    watch = Watch().write("child_exited", signal=9).write("child_restarting", attempt=0)
    assert watch.notices() == []
    watch.at(1).write("child_ready")
    assert watch.at(LASTS_S + 1).notices() == []
    assert watch.at(9000).notices() == []


def test_incident_that_lasts_a_minute_sends_a_notice_without_a_further_event():
    watch = Watch().write("health_failed", "mlx_server", "no answer")
    assert watch.next_in_s() == LASTS_S
    assert watch.at(LASTS_S - 1).notices() == []
    assert watch.next_in_s() == pytest.approx(1)
    (notice,) = watch.at(LASTS_S).notices()
    assert (notice.title, notice.event) == ("The gateway has not been well for a minute", "incident_lasts")
    watch.at(100).write("child_ready", "mlx_server")
    assert watch.next_in_s() == REOPEN_WITHIN_S


def test_incident_that_was_open_for_seconds_before_hours_of_sleep_sends_no_notice_after_them():
    """It once did so a second after the machine woke, when the service was about to be well again."""
    watch = Watch().write("health_failed", "mlx_server", "no answer").at(8 * 3600)
    watch.open_s = 11.0
    assert watch.notices() == []
    assert watch.next_in_s() == LASTS_S - 11


def test_incident_that_lasts_a_minute_sends_a_notice_although_the_clock_was_set_back():
    watch = Watch().at(7200).write("health_failed", "mlx_server", "no answer").at(30)
    watch.open_s = LASTS_S
    assert [notice.event for notice in watch.notices()] == ["incident_lasts"]


def test_service_given_up_and_then_stopped_by_a_person_sends_a_notice_of_each_event():
    watch = Watch().write("child_gave_up", "ollama", "exit code 78", code=78)
    assert watch.notices()[0].title == "Ollama cannot start"
    watch.at(50).write("stop_requested", "ollama")
    assert watch.at(100).notices()[0].title == "A person stopped Ollama"


def test_full_disk_sends_a_notice_when_writing_fails_and_when_it_works_again():
    watch = Watch().write("disk_not_writable", "agent", "Files cannot be written (no space).")
    (full,) = watch.notices()
    assert (full.service, full.title) == ("disk", "The disk cannot be written")
    assert full.text.endswith("Files cannot be written (no space).") or "no space" in full.text
    watch.at(9).write("disk_writable_again", "agent", "lost since the start: nothing")
    (back,) = watch.at(40).notices()
    assert (back.title, back.event) == ("The disk can be written again", "disk_writable_again")


def test_dead_container_sends_a_notice_at_once_only_if_memory_was_the_cause():
    for reason, title in (("signal", None), ("out_of_memory", "The orchestrator ran out of memory")):
        watch = Watch().write("container_died", "orchestrator", "over its limit", reason=reason)
        assert [notice.title for notice in watch.notices()] == ([title] if title else [])


def test_notice_of_stranded_memory_says_that_only_a_reboot_helps():
    watch = Watch().write("only_a_reboot_helps", "memory", "80 % is wired down; reboot")
    (notice,) = watch.notices()
    assert notice.title == "Only a reboot helps"
    assert "80 % is wired down; reboot" in notice.text


def test_notice_sent_by_an_earlier_agent_is_not_repeated_but_the_end_of_its_incident_is_sent():
    watch = breaker()
    watch.notices()
    watch.at(40).write("agent_started", "agent").at(70).write("child_ready")
    assert [notice.over for notice in watch.at(100).notices()] == [True]


def test_notice_of_an_incident_with_a_number_above_a_million_is_sent_once():
    """The number was once read as a count, which is capped: the notice was sent ten times a second."""
    watch = breaker_after(events=1_500_000)
    assert len(watch.notices()) == 1
    assert watch.notices() == []


def test_incident_that_ended_long_ago_sends_no_notice_from_a_new_agent():
    watch = breaker().at(65).write("child_ready").at(65 + LATE_S + 1)
    assert watch.notices() == []


def test_incident_that_is_over_at_once_sends_no_notice():
    watch = Watch().write("journal_replaced", "agent", "it was damaged")
    assert watch.notices() == []
    assert watch.at(70).notices() == []
