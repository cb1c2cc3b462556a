"""What a person is told of: little, in words, once."""

from __future__ import annotations

from typing import Any

import pytest

from host_agent.notifications.notices import AGAIN_AFTER_S, Notices


def entry(event: str, ts: float = 0.0, component: str = "mlx_engine", cause: str = "", **fields: Any) -> dict:
    return {"seq": 1, "ts": ts, "component": component, "event": event, "cause": cause, "fields": fields}


def test_open_breaker_is_told_with_cause_and_remedy():
    notice = Notices().of(entry("breaker_opened", 5.0, cause="killed by SIGSEGV", open_s=60))
    assert notice is not None
    assert notice.title == "mlx_engine keeps failing"
    assert notice.text.startswith("Killed by SIGSEGV. It is tried again in 60 s.")
    assert "vestal recover --reset" in notice.text
    assert notice.as_json()["text"] == f"{notice.title}: {notice.text}"


@pytest.mark.parametrize("event", ["child_started", "child_exited", "request_resumed", "recovery_finished"])
def test_what_heals_itself_is_not_worth_a_word(event):
    assert Notices().of(entry(event)) is None


def test_same_thing_is_not_told_twice_within_the_hour():
    notices = Notices()
    told = [notices.of(entry("breaker_opened", at, open_s=60)) for at in (0, 60, AGAIN_AFTER_S + 1)]
    assert [notice is not None for notice in told] == [True, False, True]
    assert notices.of(entry("breaker_opened", 61, component="ollama", open_s=60)) is not None


def test_what_was_told_to_be_down_is_told_to_be_back_once():
    notices = Notices()
    assert notices.of(entry("child_ready")) is None
    notices.of(entry("child_gave_up", 1, cause="exit code 78"))
    back = notices.of(entry("child_ready", 2))
    assert back is not None and back.title == "mlx_engine is back"
    assert notices.of(entry("child_ready", 3)) is None
    assert notices.of(entry("child_gave_up", 4, cause="exit code 78")) is not None


def test_container_that_died_is_told_of_only_where_memory_was_the_cause():
    notices = Notices()
    assert notices.of(entry("container_died", component="orchestrator", reason="signal")) is None
    notice = notices.of(
        entry(
            "container_died", component="orchestrator", cause="out of memory at 2 GiB", reason="out_of_memory"
        )
    )
    assert notice is not None and notice.title == "orchestrator ran out of memory"


def test_machine_that_only_a_reboot_heals_is_told_of():
    notice = Notices().of(entry("only_a_reboot_helps", component="memory", cause="80% is wired down; reboot"))
    assert notice is not None and notice.title == "Only a reboot helps"
