"""The answer log on a full, read-only or slow disk: serving continues, and no file has a gap."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from pathlib import Path

import pytest

from mlx_server.gateway.answer_log import Ended, Event, LogInUse
from mlx_server.gateway.answer_log.file_names import FileName
from tests.disks.answer_log_fixtures import FaultyFolder, Logs, accepted, token
from vestal.best_effort.failures import FAILURES

RETRIED = [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE]


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path / "state" / "answers")


@pytest.fixture
def folder(logs: Logs) -> FaultyFolder:
    return FaultyFolder(logs.path)


@pytest.mark.parametrize("error", RETRIED)
async def test_answer_log_keeps_all_records_while_the_disk_refuses_writes_and_reports_the_fault_once(
    logs: Logs, folder: FaultyFolder, error: int
):
    log = await logs.open(folder)
    log.begin(accepted("a"))
    log.append("a", token(0))
    await log.flush()
    folder.error, folder.room_bytes = error, 30  # the next record is written in part
    for index in range(1, 4):
        log.append("a", token(index))
        await log.flush()
    log.begin(accepted("b"))
    await log.flush()
    expected = [accepted("a"), *(token(index) for index in range(4))]
    assert await log.records("a") == expected and await log.records("b") == [accepted("b")]
    (said,) = logs.events
    assert said[0] == "answer_log_stopped"
    assert str(logs.path) in said[1] and os.strerror(error) in said[1]
    assert FAILURES.as_json()["answer_log"]["failing_since"] is not None
    folder.error = None
    await log.flush()
    assert [name for name, _, _ in logs.events] == ["answer_log_stopped", "answer_log_resumed"]
    assert FAILURES.as_json()["answer_log"]["failing_since"] is None
    await log.close()
    log = await logs.open()
    assert await log.records("a") == expected and await log.records("b") == [accepted("b")]
    await log.close()


async def test_answer_log_of_a_gateway_killed_on_a_full_disk_has_all_records_from_before_the_fault(
    logs: Logs, folder: FaultyFolder
):
    log = await logs.open(folder)
    log.begin(accepted("a"))
    log.append("a", token(0))
    await log.flush()
    folder.error, folder.room_bytes = errno.ENOSPC, 30
    log.append("a", token(1))
    log.begin(accepted("b"))
    log.ended("a")
    await log.close()  # all that the thread can do by then; the rest dies with the process
    log = await logs.open()
    assert log.unfinished() == ["a"]
    assert await log.records("a") == [accepted("a"), token(0)]
    await log.close()


async def test_file_of_an_answer_that_ended_while_the_disk_was_read_only_is_marked_as_ended_when_writable(
    logs: Logs, folder: FaultyFolder
):
    log = await logs.open(folder)
    for answer_id in ("a", "b"):
        log.begin(accepted(answer_id))
    await log.flush()
    folder.error = errno.EROFS
    log.ended("a")
    log.forget("b")
    await log.flush()
    assert await log.records("a") == [accepted("a"), Ended()]
    assert logs.files() == {"a": "open", "b": "open"}
    folder.error = None
    await log.flush()
    assert logs.files() == {"a": "ended"}
    await log.close()


async def test_answer_log_without_write_permission_drops_answers_and_stores_new_ones_when_permission_returns(
    logs: Logs, folder: FaultyFolder
):
    """Missing permissions do not come back by themselves, so nothing is kept in memory for later."""
    log = await logs.open(folder, max_waiting_bytes=3000)
    folder.error = errno.EACCES
    for answer_id in ("a", "b"):
        log.begin(accepted(answer_id, body=b"x" * 2000))
        await log.flush()
    assert [log.status(answer_id) for answer_id in ("a", "b")] == ["expired", "expired"]
    log.append("a", token(0))
    assert [name for name, _, _ in logs.events] == ["answer_log_stopped"]
    folder.error = None
    for answer_id in ("c", "d"):
        log.begin(accepted(answer_id, body=b"x" * 1000))
    await log.flush()
    assert logs.files() == {"c": "open", "d": "open"}
    assert [name for name, _, _ in logs.events] == ["answer_log_stopped", "answer_log_resumed"]
    await log.close()


async def test_answer_log_on_a_full_disk_drops_answers_when_its_unwritten_records_exceed_a_memory_limit(
    logs: Logs, folder: FaultyFolder
):
    log = await logs.open(folder, max_waiting_bytes=5000)
    log.begin(accepted("a"))
    log.append("a", token(0))
    await log.flush()
    folder.error = errno.ENOSPC
    log.begin(accepted("b", body=b"x" * 2000))
    log.begin(accepted("c", body=b"x" * 2000))
    for index in range(1, 30):
        log.append("a", token(index))
    assert [log.status(answer_id) for answer_id in "abc"] == ["expired", "open", "open"]
    log.begin(accepted("d", body=b"x" * 6000))
    assert log.status("d") == "expired"
    await log.flush()
    assert logs.files() == {}  # nobody continues `a` from half of it
    folder.error = None
    await log.flush()
    await log.flush()
    assert logs.files() == {"b": "open", "c": "open"}
    assert [name for name, _, _ in logs.events] == ["answer_log_stopped", "answer_log_resumed"]
    log.begin(accepted("e", body=b"x" * 6000))  # larger than the limit, while nothing else waits
    assert len(await log.records("e") or []) == 1
    await log.close()


class StuckFolder(FaultyFolder):
    """A folder in which one call waits, until `go_on` is set."""

    def __init__(self, path: Path, stuck_in: str) -> None:
        super().__init__(path)
        self.stuck_in = stuck_in
        self.entered, self.go_on = threading.Event(), threading.Event()

    def _stick(self, call: str) -> None:
        if call == self.stuck_in:
            self.entered.set()
            assert self.go_on.wait(30)

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        self._stick("write")
        return super().write(descriptor, data, offset)

    def rename(self, name: FileName, new_name: FileName) -> None:
        self._stick("rename")
        super().rename(name, new_name)


async def test_answer_log_on_a_disk_that_does_not_respond_blocks_no_caller(logs: Logs):
    folder = StuckFolder(logs.path, "write")
    log = await logs.open(folder, max_waiting_bytes=20_000)
    log.begin(accepted("a"))
    await asyncio.to_thread(folder.entered.wait, 30)
    for index in range(1000):
        log.append("a", token(index))
    assert log.status("a") == "expired"
    assert [name for name, _, _ in logs.events] == ["answer_log_stopped"]
    log.sweep()
    folder.go_on.set()
    await log.flush()
    assert logs.files() == {}
    log.begin(accepted("b"))
    await log.flush()
    assert [name for name, _, _ in logs.events] == ["answer_log_stopped", "answer_log_resumed"]
    await log.close()


async def test_answer_log_retries_a_record_that_the_disk_refused_before_it_writes_the_next_record(logs: Logs):
    folder = StuckFolder(logs.path, "write")
    folder.error = errno.ENOSPC
    log = await logs.open(folder)
    folder.room_bytes = 40
    log.begin(accepted("a"))
    await asyncio.to_thread(folder.entered.wait, 30)
    log.append("a", token(0))
    folder.go_on.set()
    await log.flush()
    folder.error = None
    assert await log.records("a") == [accepted("a"), token(0)]
    await log.close()


async def test_answer_log_does_not_report_damage_if_an_answer_ends_while_its_records_are_read(logs: Logs):
    for stuck_in in ("write", "rename"):
        folder = StuckFolder(logs.path, stuck_in)
        log = await logs.open(folder)
        log.begin(accepted(stuck_in))
        if stuck_in == "rename":
            log.ended(stuck_in)
        await asyncio.to_thread(folder.entered.wait, 30)
        reading = asyncio.ensure_future(log.records(stuck_in))
        await asyncio.sleep(0)
        log.ended(stuck_in)
        folder.go_on.set()
        assert await reading == await log.records(stuck_in) == [accepted(stuck_in), Ended()]
        assert log.status(stuck_in) == "ended" and logs.events == []
        await log.close()


async def test_answer_deleted_from_the_log_while_its_file_is_renamed_leaves_no_file(logs: Logs):
    folder = StuckFolder(logs.path, "rename")
    log = await logs.open(folder)
    log.begin(accepted("a"))
    log.ended("a")
    await asyncio.to_thread(folder.entered.wait, 30)
    log.forget("a")
    folder.go_on.set()
    await log.flush()
    assert logs.files() == {}
    await log.close()


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS])
async def test_truncated_answer_file_is_continued_in_memory_while_the_disk_cannot_be_written(
    logs: Logs, folder: FaultyFolder, error: int
):
    log = await logs.open()
    log.begin(accepted("a"))
    log.append("a", token(0))
    await log.close()
    (path,) = logs.path.glob("*.open")
    os.truncate(path, path.stat().st_size - 1)
    log = await logs.open(folder)
    folder.error = error
    log.append("a", token(0, "again"))
    assert await log.records("a") == [accepted("a"), token(0, "again")]
    await log.close()


async def test_answer_log_can_still_be_read_after_earlier_reads_were_cancelled(logs: Logs):
    log = await logs.open()
    log.begin(accepted("a"))
    for _ in range(20):
        waiting = [asyncio.ensure_future(log.records("a")), asyncio.ensure_future(log.flush())]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    assert await log.records("a") == [accepted("a")]
    await log.close()


class NewDisk(FaultyFolder):
    """A folder that does not exist yet, and cannot be made while the disk is full."""

    def make(self) -> None:
        self._fail()
        super().make()


async def test_answer_log_that_starts_on_a_full_disk_does_not_use_a_folder_another_gateway_has_taken(
    logs: Logs,
):
    folder = NewDisk(logs.path)
    folder.error = errno.ENOSPC
    log = await logs.open(folder)
    other = await logs.open()
    folder.error = None
    log.begin(accepted("a"))
    await log.flush()
    assert log.status("a") == "expired" and logs.files() == {}
    assert [name for name, _, _ in logs.events] == ["answer_log_stopped"]
    await other.close()
    log.begin(accepted("b"))
    await log.flush()
    assert logs.files() == {"b": "open"}
    await log.close()


async def test_answer_log_folder_unusable_at_the_start_is_used_once_it_can_be_written(logs: Logs):
    folder = NewDisk(logs.path)
    folder.error = errno.ENOSPC
    log = await logs.open(folder)
    log.begin(accepted("a"))
    await log.flush()
    assert [name for name, _, _ in logs.events] == ["answer_log_stopped"]
    folder.error = None
    log.append("a", token(0))
    assert await log.records("a") == [accepted("a"), token(0)]
    assert logs.files() == {"a": "open"} and len(logs.named("answer_log_resumed")) == 1
    with pytest.raises(LogInUse):
        await logs.open()
    await log.close()


async def test_answer_log_writes_more_files_than_may_be_open_at_once(logs: Logs):
    class CountingFolder(FaultyFolder):
        reopened = 0

        def reopen(self, name: FileName, size_bytes: int) -> int:
            CountingFolder.reopened += 1
            return super().reopen(name, size_bytes)

    log = await logs.open(CountingFolder(logs.path))
    ids = [f"a{number}" for number in range(100)]
    for answer_id in ids:
        log.begin(accepted(answer_id))
    await log.flush()
    for index in range(2):
        for answer_id in ids:
            log.append(answer_id, token(index))
        await log.flush()
    assert CountingFolder.reopened >= len(ids)
    for answer_id in ids:
        records = await log.records(answer_id)
        assert [each.event.index for each in records or [] if isinstance(each, Event)] == [0, 1]  # type: ignore[union-attr]
    await log.close()
