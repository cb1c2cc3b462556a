"""Token, journal, locks, logs: what is kept in files, and what becomes of it when processes die."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from host_agent.journal import PRUNE_EVERY, Journal
from vestal.config import ConfigError, Home, ensure_token, read_token
from vestal.platform import log_rotation, ports
from vestal.platform.file_lock import LockHeld, hold_lock_blocking, try_lock

REPO = Path(__file__).resolve().parents[3]


def home_at(path: Path) -> Home:
    home = Home(path, path / "logs", path.parent / ".vestal")
    home.prepare()
    return home


def test_token_is_made_once_and_is_the_owners_alone(home: Path):
    made = home_at(home)
    token = ensure_token(made)
    assert len(token) >= 32
    assert ensure_token(made) == read_token(made) == token
    assert made.token.stat().st_mode & 0o777 == 0o600
    made.token.chmod(0o644)
    ensure_token(made)
    assert made.token.stat().st_mode & 0o777 == 0o600


def test_token_made_by_many_at_once_is_one(home: Path):
    made, seen = home_at(home), set()
    threads = [threading.Thread(target=lambda: seen.add(ensure_token(made))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 1
    assert sorted(path.name for path in home.glob(".token*")) == []


def test_token_that_is_missing_says_how_to_make_one(home: Path):
    with pytest.raises(ConfigError, match="vestal up"):
        read_token(home_at(home))


def test_home_is_the_owners_alone(home: Path):
    made = home_at(home / "new")
    assert {path.stat().st_mode & 0o777 for path in (made.root, made.run, made.cache)} == {0o700}


def test_journal_killed_in_the_midst_of_writing_is_whole(home: Path):
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


def test_journal_is_bounded_and_reads_both_ways(home: Path):
    journal = Journal(home / "journal.db", max_rows=50)
    for number in range(2 * PRUNE_EVERY):
        journal.record("test", "counted", number=number)
    rows = journal.since(0, 10**6)
    assert 50 <= len(rows) <= 50 + PRUNE_EVERY
    assert [entry["fields"]["number"] for entry in journal.newest(3)] == [397, 398, 399]
    last = journal.last("test", "counted")
    assert last is not None
    assert last["fields"]["number"] == 399
    assert journal.last("test", "never") is None
    journal.close()


def test_damaged_journal_is_put_aside(home: Path):
    path = home / "journal.db"
    path.write_bytes(b"this is no database at all" * 100)
    journal = Journal(path)
    assert journal.record("test", "began")["seq"] == 1
    journal.close()
    assert len(list(home.glob("journal.db.damaged-*"))) == 1


async def test_reader_that_falls_behind_is_cut_off_and_the_others_are_not(home: Path):
    journal = Journal(home / "journal.db")
    with journal.follow() as slow:
        for _ in range(1001):
            journal.record("test", "counted")
        with journal.follow() as quick:
            journal.record("test", "after")
            entry = quick.get_nowait()
        assert entry is not None
        assert entry["event"] == "after"
        told = [slow.get_nowait() for _ in range(slow.qsize())]
    assert told[-1] is None
    journal.close()


def test_lock_is_held_by_one_process_and_freed_by_its_death(home: Path):
    path = home / "lock"
    program = (
        "import sys, time; from pathlib import Path; from vestal.platform.file_lock import try_lock\n"
        f"held = try_lock(Path({str(path)!r})); print(held is not None, flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout
    assert holder.stdin
    assert holder.stdout.readline().strip() == "True"
    assert try_lock(path) is None
    with pytest.raises(LockHeld), hold_lock_blocking(path, 0.0):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    holder.stdin.close()
    with hold_lock_blocking(path, 1.0):
        assert try_lock(path) is None


def test_holder_of_a_real_port_is_found(home: Path):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        assert ports.holder(port) is None, "bound is not listening"
        listening.listen()
        found = ports.holder(port)
        assert found is not None
        assert found.pid == os.getpid()
        assert found.since is not None
        assert not ports.is_free(port)
    assert ports.holder(port) is None
    assert ports.is_free(port)


def test_log_over_its_size_is_cut_while_its_writer_goes_on(home: Path):
    log = home / "one.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 100)
        assert log_rotation.rotate(home, max_bytes=50) == [log]
        writer.write(b"more")
    assert log.read_bytes() == b"more"
    assert (home / "one.log.1").read_bytes() == b"x" * 100
    assert log_rotation.rotate(home, max_bytes=50) == []
