"""Which copies of damaged journals are kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest

from host_agent.journal import database


class Clock(datetime):
    """A wall clock that the test sets, in a time zone that is two hours ahead of UTC."""

    at = datetime(2026, 10, 25, 0, 10, tzinfo=UTC)

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return cls.at.astimezone(tz) if tz else (cls.at + timedelta(hours=2)).replace(tzinfo=None)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    monkeypatch.setattr(database, "datetime", Clock)
    monkeypatch.setattr(Clock, "at", Clock.at)
    return Clock


def put_aside(path: Path, content: str) -> None:
    path.write_text(content)
    damaged = database.JournalDatabase(path)
    damaged.put_aside("it is damaged", damaged.file_at_path())


def test_newest_damaged_journal_is_kept_although_the_clock_was_set_back(tmp_path: Path, clock: type[Clock]):
    """Of four damaged journals, the newest was deleted in the hour after the clock went back."""
    path = tmp_path / "journal.db"
    for number in range(3):
        clock.at += timedelta(minutes=10)
        put_aside(path, f"{number}")
    clock.at -= timedelta(hours=1)
    put_aside(path, "newest")
    kept = {copy.read_text() for copy in database.damaged_copies(path)}
    assert kept == {"newest", "1", "2"}


def test_copy_of_a_damaged_journal_has_the_time_in_utc_in_its_name(tmp_path: Path):
    put_aside(tmp_path / "journal.db", "x")
    (copy,) = database.damaged_copies(tmp_path / "journal.db")
    assert copy.name == "journal.db.damaged-20261025T001000-000000Z"
