"""Check that the answer log loses nothing that was flushed, and invents nothing, across kills at any byte."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mlx_server.gateway.answer_log import Ended, Left, Record, Silence, TakenUp
from mlx_server.gateway.answer_log.earlier_files import START_GRACE_S
from mlx_server.gateway.answer_log.file_names import FileName
from tests.disks.answer_log_fixtures import FaultyFolder, Logs, accepted, token

T = TypeVar("T")
KEEP_S = 100.0
MAX_ANSWERS = 5
MAX_BYTES = 6000
TICK_S = 1 / 64  # exact in a float and in a file's time, so that no two answers end at one time
PICK = st.integers(0, 10**6)
KEYS = st.none() | st.sampled_from(["k1", "k2"])


@dataclass
class Answer:
    """What the model knows of an answer: its records, how many of them were flushed, and its state."""

    number: int
    id: str
    key: str | None
    records: list[Record]
    since_s: float
    flushed: int = 0
    flushed_bytes: int = 0
    suspended: bool = False
    ended: bool = False

    @property
    def eviction(self) -> tuple[int, float, int]:
        if self.ended or self.suspended:
            return int(not self.ended), self.since_s, self.number
        return 2, 0.0, -self.number


class AnyUse(RuleBasedStateMachine):
    """Use a log in any order on a disk that is full at times, and kill its gateway at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.loop = asyncio.new_event_loop()
        self.logs = Logs(self.home / "answers")
        self.answers: dict[str, Answer] = {}
        self.gone: set[str] = set()
        self.begun = 0
        self.folder, self.log = self.opened()

    def opened(self) -> tuple[FaultyFolder, Any]:
        folder = FaultyFolder(self.logs.path)
        limits = {"keep_s": KEEP_S, "max_answers": MAX_ANSWERS, "max_bytes": MAX_BYTES}
        return folder, self.run(self.logs.open(folder, **limits))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    def now(self) -> float:
        return self.logs.clock.now()

    def picked(self, pick: int, *, suspended: bool | None = None) -> Answer | None:
        found = [
            answer
            for answer in self.answers.values()
            if not answer.ended and suspended in (None, answer.suspended)
        ]
        return found[pick % len(found)] if found else None

    def path_of(self, answer_id: str) -> Path | None:
        names = [FileName.parse(path.name) for path in self.logs.path.iterdir()]
        return next((self.logs.path / str(name) for name in names if name and name.id == answer_id), None)

    def evict(self) -> None:
        """Remove from the model what the limit of the number evicts; of the bytes, believe the log."""
        while len(self.answers) > MAX_ANSWERS:
            victim = min(self.answers.values(), key=lambda answer: answer.eviction)
            self.lose(victim.id)
        for answer_id in [each for each in self.answers if self.log.status(each) == "expired"]:
            least = min(answer.eviction[0] for answer in self.answers.values())
            assert self.answers[answer_id].eviction[0] == least
            self.lose(answer_id)

    def lose(self, answer_id: str) -> None:
        del self.answers[answer_id]
        self.gone.add(answer_id)

    def append(self, answer: Answer, record: Record) -> None:
        self.log.append(answer.id, record)
        answer.records.append(record)
        self.evict()

    @rule(key=KEYS, size=st.integers(0, 2500))
    def a_request_is_accepted(self, key: str | None, size: int) -> None:
        self.begun += 1
        request = accepted(f"r{self.begun}", key=key, body=b"x" * size)
        self.log.begin(request)
        self.answers[request.id] = Answer(self.begun, request.id, key, [request], self.now())
        self.evict()

    @rule(pick=PICK, text=st.text(st.characters(exclude_categories=()), max_size=4), silent=st.booleans())
    def a_client_is_given_something(self, pick: int, text: str, silent: bool) -> None:
        if answer := self.picked(pick, suspended=False):
            self.append(answer, Silence(0) if silent else token(len(answer.records), text))

    @rule(pick=PICK)
    def a_client_leaves_or_comes_back(self, pick: int) -> None:
        if answer := self.picked(pick):
            answer.suspended, answer.since_s = not answer.suspended, self.now()
            self.append(answer, Left() if answer.suspended else TakenUp())

    @rule(pick=PICK)
    def an_answer_ends(self, pick: int) -> None:
        if answer := self.picked(pick):
            self.log.ended(answer.id)
            if self.log.status(answer.id) == "expired":  # its last record was one too many
                self.lose(answer.id)
                return
            answer.records.append(Ended())
            answer.ended, answer.suspended, answer.since_s = True, False, self.now()
            self.logs.clock.advance(TICK_S)
            self.evict()

    @rule(pick=PICK)
    def an_answer_is_forgotten(self, pick: int) -> None:
        self.run(self.log.flush())
        if self.folder.error is None and self.answers:
            answer = list(self.answers.values())[pick % len(self.answers)]
            self.log.forget(answer.id)
            self.run(self.log.flush())
            assert self.path_of(answer.id) is None
            del self.answers[answer.id]

    @rule(seconds=st.sampled_from([1.0, KEEP_S / 2, KEEP_S]))
    def time_passes(self, seconds: float) -> None:
        self.logs.clock.advance(seconds)
        self.log.sweep()
        for answer in list(self.answers.values()):
            if (answer.ended or answer.suspended) and self.now() - answer.since_s >= KEEP_S:
                self.lose(answer.id)

    @rule()
    def all_is_flushed(self) -> None:
        self.run(self.log.flush())
        if self.folder.error is None:
            for answer in self.answers.values():
                path = self.path_of(answer.id)
                assert path is not None
                answer.flushed, answer.flushed_bytes = len(answer.records), path.stat().st_size

    @rule(room_bytes=st.integers(0, 300))
    def the_disk_is_full(self, room_bytes: int) -> None:
        self.folder.error, self.folder.room_bytes = errno.ENOSPC, room_bytes

    @precondition(lambda self: self.folder.error is not None)
    @rule()
    def the_disk_has_room_again(self) -> None:
        self.folder.error = None

    @rule(cuts=st.lists(st.integers(0, 10**6), min_size=MAX_ANSWERS, max_size=MAX_ANSWERS))
    def the_gateway_is_killed(self, cuts: list[int]) -> None:
        """Whatever was written since the last flush is there up to any byte, or not at all."""
        self.run(self.log.close())
        for answer, cut in zip(list(self.answers.values()), cuts, strict=False):
            path = self.path_of(answer.id)
            if path is None:
                continue
            written_s = self.logs.clock.wall() - self.now() + answer.since_s
            if answer.flushed == len(answer.records):
                os.utime(path, (written_s, written_s))
                continue
            size = path.stat().st_size
            kept = answer.flushed_bytes + cut % (size - answer.flushed_bytes + 1)
            with path.open("r+b") as file:
                file.truncate(kept)
            os.utime(path, (written_s, written_s))
            if path.suffix == ".ended":
                path = path.rename(path.with_suffix(".open"))
            if kept == 0 and cut % 2:
                path.unlink()
        self.folder, self.log = self.opened()
        for answer in list(self.answers.values()):
            self.find_again(answer)

    def find_again(self, answer: Answer) -> None:
        status = self.log.status(answer.id)
        if status is None:
            assert answer.flushed == 0
            del self.answers[answer.id]
            return
        records = self.run(self.log.records(answer.id))
        assert records is not None and answer.flushed <= len(records)
        assert records == answer.records[: len(records)]
        assert (status == "ended") == isinstance(records[-1], Ended)
        path = self.path_of(answer.id)
        assert path is not None
        last = next((each for each in reversed(records) if isinstance(each, Left | TakenUp)), None)
        answer.records, answer.flushed = records, len(records)
        answer.ended = status == "ended"
        answer.suspended = not answer.ended and isinstance(last, Left)
        is_over = answer.ended or answer.suspended
        age_s = min(self.now() - answer.since_s, KEEP_S - START_GRACE_S) if is_over else 0.0
        answer.since_s = self.now() - age_s
        answer.flushed_bytes = path.stat().st_size if answer.ended else 0
        if not answer.ended:  # a torn record still stands in the file, and is not one of the flushed ones
            answer.flushed_bytes = min(path.stat().st_size, self.log._index.get(answer.id).size_bytes)

    @invariant()
    def the_log_has_the_answers_of_the_model_and_no_others(self) -> None:
        by_number = sorted(self.answers.values(), key=lambda answer: answer.number)
        assert self.log.unfinished() == [answer.id for answer in by_number if not answer.ended]
        for answer in by_number:
            assert self.log.status(answer.id) == ("ended" if answer.ended else "open")
            assert self.run(self.log.records(answer.id)) == answer.records
        assert len(self.log._index) == len(self.answers)
        assert all(self.log.status(answer_id) in ("expired", None) for answer_id in self.gone)

    @invariant()
    def a_key_names_an_answer_that_was_accepted_with_it(self) -> None:
        for key in ("k1", "k2"):
            found = self.log.id_of_key(key)
            assert found is None or self.answers[found].key == key

    @invariant()
    def bytes_are_within_the_limit_and_counted(self) -> None:
        entries = [self.log._index.get(answer_id) for answer_id in self.answers]
        assert self.log._index.total_bytes == sum(entry.size_bytes for entry in entries) <= MAX_BYTES

    def teardown(self) -> None:
        self.run(self.log.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        shutil.rmtree(self.home, ignore_errors=True)


TestAnyUse = AnyUse.TestCase
TestAnyUse.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
