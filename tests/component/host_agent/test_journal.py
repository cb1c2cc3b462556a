"""The journal on disk: a killed writer, a damaged file, the bound, and followers that fall behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from host_agent.journal import PRUNE_EVERY, Journal

REPO = Path(__file__).resolve().parents[3]


def test_journal_whose_writer_is_killed_has_every_event(home: Path):
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


def test_journal_is_bounded_and_reads_from_both_ends(home: Path):
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
    assert journal.record("test", "began")["seq"] == 1
    journal.close()
    assert len(list(home.glob("journal.db.damaged-*"))) == 1


async def test_follower_that_falls_behind_is_disconnected_and_others_are_not(home: Path):
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
