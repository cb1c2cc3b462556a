"""The journal's files: their loss, and who may read them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from host_agent.journal import Journal


def test_each_loss_of_the_journal_is_recorded(home: Path):
    """Only the first was: the second deletion had the same cause in words, and passed for the first."""
    path = home / "journal.db"
    journal = Journal(path)
    for number in (1, 2, 3):
        for file in home.glob("journal.db*"):
            file.unlink()
        journal.record("test", "after", number=number)
        assert [event["event"] for event in journal.since(0)] == ["journal_replaced", "after"]
    assert "deleted" in journal.replaced
    journal.close()


@pytest.mark.parametrize(
    "made_before", [(), ("journal.db",), ("journal.db", "journal.db-wal", "journal.db-shm")]
)
def test_every_file_of_the_journal_is_readable_only_by_its_user(
    home: Path, made_before: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
):
    """The journal was made private only after SQLite had made the files beside it, with its first mode."""
    before = os.umask(0o022)
    try:
        for name in made_before:
            (home / name).touch(0o644)
        modes: list[int] = []
        monkeypatch.setattr(sqlite3, "connect", connect_and_note(modes, home))
        journal = Journal(home / "journal.db")
        journal.record("test", "began")
    finally:
        os.umask(before)
    modes += [file.stat().st_mode & 0o777 for file in home.glob("journal.db*")]
    assert len(modes) >= 4 and set(modes) == {0o600}
    journal.close()


def connect_and_note(modes: list[int], home: Path) -> Callable[..., sqlite3.Connection]:
    """Return a `sqlite3.connect` that first adds the modes of the journal's files to `modes`."""
    connect = sqlite3.connect

    def noting(*arguments: Any, **options: Any) -> sqlite3.Connection:
        modes.extend(file.stat().st_mode & 0o777 for file in home.glob("journal.db*"))
        return connect(*arguments, **options)

    return noting
