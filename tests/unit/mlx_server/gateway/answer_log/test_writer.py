"""The thread that writes the answer log: faults and closes that fall between two of its steps."""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_server.gateway.answer_log import FORMAT
from mlx_server.gateway.answer_log.file_names import FileName
from mlx_server.gateway.answer_log.folder import AnswerFolder
from mlx_server.gateway.answer_log.writer import Writer
from mlx_server.gateway.answer_log.writing_thread import GATHER_S, WritingThread
from tests.disks.answer_log_fixtures import FaultyFolder


class Reports:
    """Takes the writer's reports, and holds back its thread while an answer is reported as lost."""

    def __init__(self) -> None:
        self.is_losing = threading.Event()
        self.may_go_on = threading.Event()
        self.lost: list[FileName] = []

    def writing_failed(self, error: OSError) -> None:
        """Ignore the failure."""

    def writing_works(self) -> None:
        """Ignore the recovery."""

    def answer_lost(self, name: FileName) -> None:
        """Wait as long as the event loop is busy with something else."""
        self.is_losing.set()
        assert self.may_go_on.wait(30)
        self.lost.append(name)


def test_records_of_an_answer_that_was_just_lost_are_dropped_without_an_error(tmp_path: Path):
    folder, reports = FaultyFolder(tmp_path / "answers"), Reports()
    folder.lock()
    writer, name = Writer(folder, reports), FileName(1, "a", None, FORMAT, ended=False)  # type: ignore[arg-type]
    folder.error = errno.EACCES  # an error after which no write is tried again
    writer.add(name)
    writer.append(1, b"begun")
    assert reports.is_losing.wait(30)
    assert writer.append(1, b"more")
    writer.end(1)
    writer.remove(name)
    reports.may_go_on.set()
    writer.close().result(30)
    assert reports.lost == [name]


def test_closing_the_answer_log_writer_finishes_even_if_its_caller_is_delayed_while_the_thread_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Once, the thread saw the flag of `close` before the job that completes its future, and ended."""
    put = WritingThread.put

    def put_late(thread: WritingThread, job: Callable[[], None]) -> bool:
        time.sleep(4 * GATHER_S)  # longer than the thread gathers bytes
        return put(thread, job)

    monkeypatch.setattr(WritingThread, "put", put_late)
    folder = AnswerFolder(tmp_path / "answers")
    folder.lock()
    writer = Writer(folder, Reports())  # type: ignore[arg-type]
    writer.add(FileName(1, "a", None, FORMAT, ended=False))
    writer.append(1, b"begun")
    writer.close().result(10)
    (path,) = [path for path in (tmp_path / "answers").iterdir() if FileName.parse(path.name)]
    assert path.read_bytes() == b"begun"


def test_closed_writer_fails_a_read_and_completes_a_flush_instead_of_waiting_for_its_thread(tmp_path: Path):
    """A gateway that stopped its engine still answered requests, and these waited for ever."""
    folder, name = AnswerFolder(tmp_path / "answers"), FileName(1, "a", None, FORMAT, ended=False)
    folder.lock()
    writer = Writer(folder, Reports())  # type: ignore[arg-type]
    writer.add(name)
    writer.append(1, b"begun")
    closed, read_late = writer.close(), writer.read(lambda: name)
    closed.result(10)
    with contextlib.suppress(OSError):
        assert read_late.result(10) == b"begun"
    with pytest.raises(OSError, match="closed"):
        writer.read(lambda: name).result(10)
    writer.flush().result(10)
    writer.close().result(10)
