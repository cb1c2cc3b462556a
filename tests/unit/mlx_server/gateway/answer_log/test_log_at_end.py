"""An answer that is written to the log once it has ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlx_server.gateway.answer_log import Ended, Event, LogAtEnd, Silence, log_at_end, pack_record
from mlx_server.gateway.answer_log import log as answer_log
from tests.disks.answer_log_fixtures import Logs, accepted, token


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path / "state" / "answers")


async def test_records_of_an_answer_logged_at_its_end_are_packed_when_they_are_appended_and_not_at_the_end(
    logs: Logs, monkeypatch
):
    """They were all packed at the answer's end, which kept every other stream waiting (0.14 s for 10,000)."""
    log = await logs.open()
    at_end = LogAtEnd(log, lambda: True)
    events = [token(number) for number in range(5000)]
    at_end.begin(accepted("a", body=b""), [b"{}"])
    for event in events:
        at_end.append("a", event)
    packed: list[object] = []

    def record_and_pack(record: Any) -> bytes:
        packed.append(record)
        return pack_record(record)

    for module in (log_at_end, answer_log):
        monkeypatch.setattr(module, "pack_record", record_and_pack)
    at_end.ended("a")
    assert not any(isinstance(record, Event) for record in packed)
    monkeypatch.undo()
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
