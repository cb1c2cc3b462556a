"""Which journal events become a notice for a person, and its words."""

from __future__ import annotations

from typing import Any

import pytest

from host_agent.notifications.notices import REPEAT_AFTER_S, NoticeFilter


def entry(event: str, ts: float = 0.0, component: str = "mlx_engine", cause: str = "", **fields: Any) -> dict:
    return {"seq": 1, "ts": ts, "component": component, "event": event, "cause": cause, "fields": fields}


def test_notice_of_an_open_breaker_has_cause_and_remedy():
    notice = NoticeFilter().notice_for(entry("breaker_opened", 5.0, cause="killed by SIGSEGV", open_s=60))
    assert notice is not None
    assert notice.title == "mlx_engine keeps failing"
    assert notice.text.startswith("Killed by SIGSEGV. The next attempt is in 60 s.")
    assert "vestal recover --reset" in notice.text
    assert notice.as_json()["text"] == f"{notice.title}: {notice.text}"


@pytest.mark.parametrize("event", ["child_started", "child_exited", "request_resumed", "recovery_finished"])
def test_event_that_recovers_by_itself_gives_no_notice(event):
    assert NoticeFilter().notice_for(entry(event)) is None


def test_same_event_gives_no_second_notice_within_the_hour():
    notice_filter = NoticeFilter()
    notices = [
        notice_filter.notice_for(entry("breaker_opened", at, open_s=60)) for at in (0, 60, REPEAT_AFTER_S + 1)
    ]
    assert [notice is not None for notice in notices] == [True, False, True]
    assert notice_filter.notice_for(entry("breaker_opened", 61, component="ollama", open_s=60)) is not None


def test_service_that_was_reported_failing_is_reported_back_once():
    notice_filter = NoticeFilter()
    assert notice_filter.notice_for(entry("child_ready")) is None
    notice_filter.notice_for(entry("child_gave_up", 1, cause="exit code 78"))
    back = notice_filter.notice_for(entry("child_ready", 2))
    assert back is not None and back.title == "mlx_engine is back"
    assert notice_filter.notice_for(entry("child_ready", 3)) is None
    assert notice_filter.notice_for(entry("child_gave_up", 4, cause="exit code 78")) is not None


def test_notice_is_given_when_the_disk_fails_and_when_it_works_again():
    notice_filter = NoticeFilter()
    assert notice_filter.notice_for(entry("disk_writable_again", component="agent")) is None
    full = notice_filter.notice_for(entry("disk_not_writable", 1, component="agent", cause="no space"))
    assert full is not None
    assert (full.title, full.text) == ("The disk cannot be written", "No space.")
    back = notice_filter.notice_for(entry("disk_writable_again", 2, component="agent"))
    assert back is not None
    assert back.title == "The disk can be written again"


def test_dead_container_gives_a_notice_only_if_memory_was_the_cause():
    notice_filter = NoticeFilter()
    assert (
        notice_filter.notice_for(entry("container_died", component="orchestrator", reason="signal")) is None
    )
    notice = notice_filter.notice_for(
        entry(
            "container_died", component="orchestrator", cause="out of memory at 2 GiB", reason="out_of_memory"
        )
    )
    assert notice is not None and notice.title == "orchestrator ran out of memory"


def test_notice_of_stranded_memory_says_that_only_a_reboot_helps():
    notice = NoticeFilter().notice_for(
        entry("only_a_reboot_helps", component="memory", cause="80% is wired down; reboot")
    )
    assert notice is not None and notice.title == "Only a reboot helps"
