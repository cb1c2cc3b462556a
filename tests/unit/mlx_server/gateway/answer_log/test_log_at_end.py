"""An answer that is written to the log once it has ended."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mlx_server.gateway.answer_log import Ended, LogAtEnd, Silence
from tests.disks.answer_log_fixtures import Logs, accepted, token


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path / "state" / "answers")


async def test_records_of_an_answer_logged_at_its_end_are_packed_as_they_come(logs: Logs):
    """They were all packed at the answer's end, which kept every other stream waiting (0.14 s for 10,000)."""
    log = await logs.open()
    at_end = LogAtEnd(log, lambda: True)
    events = [token(number) for number in range(5000)]
    at_end.begin(accepted("a", body=b""), [b"{}"])
    began_s = time.perf_counter()
    for event in events:
        at_end.append("a", event)
    appended_s = time.perf_counter()
    at_end.ended("a")
    ended_s = time.perf_counter()
    assert ended_s - appended_s < (appended_s - began_s) / 2
    assert await log.records("a") == [accepted("a"), *events, Ended()]
    await log.close()


async def test_answer_logged_at_its_end_is_reported_and_not_kept_if_a_record_cannot_be_packed(logs: Logs):
    log = await logs.open()
    at_end = LogAtEnd(log, lambda: True)
    at_end.begin(accepted("a"))
    at_end.append("a", Silence(2**70))
    at_end.append("a", token(0))
    at_end.ended("a")
    assert log.status("a") == "expired" and len(logs.named("answer_log_entry_skipped")) == 1
    await log.close()
