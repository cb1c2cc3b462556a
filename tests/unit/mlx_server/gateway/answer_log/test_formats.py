"""The number of the format in the name of an answer's file."""

from __future__ import annotations

import asyncio
import errno
import threading
from pathlib import Path

import pytest

from mlx_server.gateway.answer_log import Ended, Referenced
from mlx_server.gateway.answer_log.folder import AnswerFolder
from tests.disks.answer_log_fixtures import FaultyFolder, Logs, accepted, token

REFERENCED = Referenced((b"[]",))


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path / "state" / "answers")


async def test_answer_file_has_the_number_of_the_oldest_format_that_can_hold_its_records(logs: Logs):
    """Every file had the newest number, so that a version that was put back read none of them."""
    log = await logs.open()
    log.begin(accepted("plain"))
    log.begin(accepted("referring", referenced=(b"[]",)))
    log.begin(accepted("completed"))
    for answer_id in ("plain", "referring", "completed"):
        log.append(answer_id, token(0))
    await log.flush()
    log.append("completed", REFERENCED)
    log.ended("plain")
    before = {path.name[13:] for path in logs.path.iterdir()}
    assert before == {"plain..v1.open", "referring..v2.open", "completed..v1.open"}
    log.ended("completed")
    await log.close()
    names = {path.name[13:]: path for path in logs.path.iterdir()}
    assert names.keys() == {"plain..v1.ended", "referring..v2.open", "completed..v2.ended"}
    assert b"referenced" not in names["plain..v1.ended"].read_bytes()
    log = await logs.open()
    assert await log.records("completed") == [accepted("completed"), token(0), REFERENCED, Ended()]
    await log.close()


async def test_answer_file_gets_its_new_number_and_all_records_once_a_full_disk_has_room(logs: Logs):
    folder = FaultyFolder(logs.path)
    log = await logs.open(folder)
    log.begin(accepted("a"))
    await log.flush()
    folder.error = errno.EROFS
    log.append("a", REFERENCED)
    await log.flush()
    folder.error = None
    log.ended("a")
    await log.close()
    assert [path.name[13:] for path in logs.path.iterdir()] == ["a..v2.ended"]
    log = await logs.open()
    assert await log.records("a") == [accepted("a"), REFERENCED, Ended()]
    await log.close()


async def test_answer_file_renamed_after_its_reading_was_requested_is_still_read(logs: Logs):
    disk_answers = threading.Event()

    class SlowFolder(AnswerFolder):
        def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
            disk_answers.wait(10)
            return super().write(descriptor, data, offset)

    log = await logs.open(SlowFolder(logs.path))
    log.begin(accepted("a"))
    reading = asyncio.ensure_future(log.records("a"))
    await asyncio.sleep(0)
    log.append("a", REFERENCED)
    log.ended("a")
    disk_answers.set()
    assert await reading is not None
    assert await log.records("a") == [accepted("a"), REFERENCED, Ended()]
    await log.close()
