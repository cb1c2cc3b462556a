"""The journal on disk: a killed writer, a damaged file, the bound, and followers that fall behind."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from host_agent.incidents import Incidents, incidents_in_file
from host_agent.incidents.entry import Entry
from host_agent.incidents.reading.children import ChildEvents
from host_agent.journal import PRUNE_EVERY, Journal, damaged_copies, find_damage
from host_agent.journal.journal import UNSAVED_MAX
from vestal.best_effort.failures import FAILURES

REPO = Path(__file__).resolve().parents[4]


@pytest.fixture(autouse=True)
def checks_have_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no check be ended at its time limit of 2 s, after which a damaged file counts as intact."""
    monkeypatch.setattr("host_agent.journal.database.CHECK_TIMEOUT_S", 60.0)


def test_journal_whose_writer_is_killed_contains_every_recorded_event(home: Path):
    program = (
        "import sys; from pathlib import Path; from host_agent.journal import Journal\n"
        f"journal = Journal(Path({str(home / 'journal.db')!r}))\n"
        "number = 0\n"
        "while True:\n"
        "    number += 1\n"
        "    journal.record('test', 'counted', number=number)\n"
        "    print(number, flush=True)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program], cwd=REPO, stdout=subprocess.PIPE, text=True)
    assert writer.stdout
    last = 0
    while last < 100:
        last = int(writer.stdout.readline())
    os.kill(writer.pid, signal.SIGKILL)
    last = max([last, *map(int, writer.stdout.read().split())])
    writer.stdout.close()
    writer.wait()
    journal = Journal(home / "journal.db")
    numbers = [entry["fields"]["number"] for entry in journal.since(0, 10**6)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= last
    assert journal.record("test", "went_on")["seq"] == len(numbers) + 1
    journal.close()


def test_journal_beyond_its_row_limit_drops_old_rows_and_returns_the_newest(home: Path):
    journal = Journal(home / "journal.db", max_rows=50)
    for number in range(2 * PRUNE_EVERY):
        journal.record("test", "counted", number=number)
    rows = journal.since(0, 10**6)
    assert 50 <= len(rows) <= 50 + PRUNE_EVERY
    assert [entry["fields"]["number"] for entry in journal.newest(3)] == [397, 398, 399]
    journal.close()


def test_damaged_journal_is_renamed_and_replaced(home: Path):
    path = home / "journal.db"
    path.write_bytes(b"this is no database at all" * 100)
    journal = Journal(path)
    journal.record("test", "began")
    assert [entry["event"] for entry in journal.since(0)] == ["journal_replaced", "began"]
    journal.close()
    assert len(list(home.glob("journal.db.damaged-*"))) == 1


async def test_journal_follower_that_falls_behind_is_disconnected_while_another_is_served(home: Path):
    journal = Journal(home / "journal.db")
    with journal.follow() as slow:
        for _ in range(1001):
            journal.record("test", "counted")
        with journal.follow() as quick:
            journal.record("test", "after")
            entry = quick.get_nowait()
        assert entry is not None
        assert entry["event"] == "after"
        received = [slow.get_nowait() for _ in range(slow.qsize())]
    assert received[-1] is None
    journal.close()


def _flip_bits_of_a_page(path: Path) -> None:
    """Damage the middle of the file, which SQLite reads only when it reads those rows."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        middle = file.read(4096)
        file.seek(path.stat().st_size // 2)
        file.write(bytes(byte ^ 4 for byte in middle))


def _filled(path: Path, count: int = 400) -> None:
    journal = Journal(path)
    for number in range(count):
        journal.record("test", "counted", "x" * 100, number=number)
    journal.close()


def test_journal_with_damaged_pages_is_renamed_and_replaced_when_opened(home: Path):
    """Earlier, a file with readable newest rows was used, and every reader of its damaged rows failed."""
    path = home / "journal.db"
    _filled(path)
    _flip_bits_of_a_page(path)
    assert find_damage(path)
    journal = Journal(path)
    entry = journal.record("test", "began")
    assert [found["event"] for found in journal.since(0)] == ["journal_replaced", "began"]
    assert "damaged" in journal.replaced
    assert entry["seq"] == journal.newest(1)[0]["seq"]
    assert find_damage(path) == ""
    assert [copy.parent for copy in damaged_copies(path)] == [home]
    journal.close()


def test_journal_damaged_while_open_is_replaced_by_an_empty_one(home: Path):
    path = home / "journal.db"
    _filled(path)
    journal = Journal(path)
    _flip_bits_of_a_page(path)
    asyncio.run(journal.check())
    journal.record("test", "went_on")
    assert [found["event"] for found in journal.newest(2)] == ["journal_replaced", "went_on"]
    assert find_damage(path) == ""
    journal.close()


async def test_journal_file_that_replaced_a_damaged_one_during_its_check_is_kept(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    """The check takes up to 2 s. Meanwhile an event may have met the damage, and a new file was begun: the
    check once put that one aside, with its events.
    """
    path = home / "journal.db"
    _filled(path)
    journal = Journal(path)
    _flip_bits_of_a_page(path)

    def replaced_meanwhile(checked: Path) -> str:
        damage = find_damage(checked)
        checked.rename(home / "put_aside")
        _filled(checked, 3)
        return damage

    monkeypatch.setattr("host_agent.journal.journal.find_damage", replaced_meanwhile)
    await journal.check()
    assert [found["event"] for found in journal.newest(4)[:3]] == ["counted"] * 3
    assert damaged_copies(path) == []
    journal.close()


def test_journal_files_damaged_within_one_second_are_both_kept(home: Path):
    """The names of the copies had whole seconds, so that the second copy replaced the first."""
    path = home / "journal.db"
    for number in (1, 2):
        path.write_bytes(b"no database, " * 100 + bytes([number]))
        Journal(path).close()
    first, second = damaged_copies(path)
    assert (first.read_bytes()[-1], second.read_bytes()[-1]) == (1, 2)


def test_journal_deleted_while_open_is_created_again_and_continues_its_entry_numbers(home: Path):
    path = home / "journal.db"
    _filled(path, 10)
    journal = Journal(path)
    for file in home.glob("journal.db*"):
        file.unlink()
    entry = journal.record("test", "went_on")
    assert entry["seq"] == 12
    found = journal.since(0)
    assert [(event["seq"], event["event"]) for event in found] == [(11, "journal_replaced"), (12, "went_on")]
    journal.close()
    assert [event["event"] for event in Journal(path).newest(1)] == ["went_on"]


def test_journal_deleted_while_its_write_ahead_log_remains_is_created_again(home: Path):
    path = home / "journal.db"
    journal = Journal(path)
    journal.record("test", "before")
    path.unlink()
    journal.keep()
    journal.record("test", "after")
    assert [event["event"] for event in journal.since(0)] == ["journal_replaced", "after"]
    assert find_damage(path) == ""
    journal.close()


def test_journal_on_a_broken_disk_holds_events_in_memory_and_writes_them_later(home: Path):
    """A folder in place of the journal's file cannot be opened for writing, even by root."""
    path = home / "journal.db"
    path.mkdir()
    journal = Journal(path)
    for number in range(3):
        journal.record("test", "counted", number=number)
    assert [event["fields"]["number"] for event in journal.newest()] == [0, 1, 2]
    assert [event["fields"]["number"] for event in journal.since(1)] == [1, 2]
    assert FAILURES.as_json()["journal"]["failing_since"]
    path.rmdir()
    journal.keep()
    assert not FAILURES.as_json()["journal"]["failing_since"]
    journal.close()
    again = Journal(path)
    assert [event["fields"]["number"] for event in again.newest()] == [0, 1, 2]
    again.close()


def test_journal_numbers_events_held_in_memory_after_the_events_in_the_file(home: Path):
    path = home / "journal.db"
    _filled(path, 5)
    path.rename(home / "elsewhere")
    path.mkdir()
    journal = Journal(path)
    assert journal.record("test", "waited")["seq"] == 1
    path.rmdir()
    (home / "elsewhere").rename(path)
    journal.keep()
    assert [event["seq"] for event in journal.newest(2)] == [5, 6]
    assert journal.record("test", "after")["seq"] == 7
    journal.close()


def test_journal_on_a_broken_disk_drops_and_counts_the_oldest_events_beyond_its_memory_limit(home: Path):
    path = home / "journal.db"
    path.mkdir()
    journal = Journal(path)
    before = FAILURES.count("journal")
    for number in range(UNSAVED_MAX + 2):
        journal.record("test", "counted", number=number)
    assert FAILURES.count("journal") == before + 2
    assert journal.newest(5000)[0]["fields"]["number"] == 2
    journal.close()


def test_journal_records_an_event_with_half_a_surrogate_pair(home: Path):
    journal = Journal(home / "journal.db")
    journal.record("test", "odd", "cut \ud83d off", text="\ud83d")
    assert journal.newest(1)[0]["cause"] == "cut ? off"
    journal.close()


def test_journal_entry_with_invalid_json_and_invalid_utf_8_is_still_returned(home: Path):
    path = home / "journal.db"
    journal = Journal(path)
    journal.record("test", "odd")
    with sqlite3.connect(path) as database:
        database.execute("UPDATE events SET fields = '[}', cause = CAST(X'ff41' AS TEXT)")
    assert journal.newest(1)[0]["fields"] == {"unreadable": "[}"}
    assert journal.newest(1)[0]["cause"] == "\ufffdA"
    journal.close()


def test_journal_event_whose_reader_raises_is_skipped_and_logged_once_and_other_incidents_are_read(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Such an event once kept each next agent from starting, until the journal was deleted."""

    def raises(self: ChildEvents, entry: Entry) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(ChildEvents, "breaker_opened", raises)
    journal = Journal(home / "journal.db")
    for _ in range(3):
        journal.record("mlx_engine", "breaker_opened", open_s=60)
    journal.record("ollama", "child_gave_up", "exit code 78")
    with caplog.at_level(logging.ERROR, "vestal"):
        incidents = Incidents(journal)
        journal.record("mlx_engine", "breaker_opened", open_s=60)
    assert [incident["title"] for incident in incidents.newest()] == ["Ollama cannot start"]
    assert len(caplog.records) == 1
    assert len(incidents_in_file(home / "journal.db")) == 1
    journal.close()
