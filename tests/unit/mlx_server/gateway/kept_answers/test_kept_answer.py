"""What a client is sent of an answer has been written to the log before.

A gateway was killed when its clients had each a token more than its log. The next gateway gave keep-alives,
which took the frame numbers of those tokens: all six streams had one word twice ("a reminder reminder of").
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from mlx_server import VERSION, protocol
from mlx_server.gateway.answer_log import FORMAT, Accepted, Event
from mlx_server.gateway.kept_answers import kept_answer
from mlx_server.gateway.kept_answers.kept_answer import KeptAnswer

HEAD = Accepted(FORMAT, "a1", 0.0, "POST", "/api/chat", "", (), b"", 1, None, "", VERSION)


class SlowLog:
    """Stands in for the answer log. `write` has the disk take what was appended before each flush."""

    def __init__(self) -> None:
        self.appended: list[Any] = []
        self.written: list[Any] = []
        self.flushes: list[tuple[int, asyncio.Future[None]]] = []

    def begin(self, accepted: Accepted, body: Sequence[bytes] = ()) -> None:
        self.appended.append(accepted)

    def append(self, _: str, record: Any) -> None:
        self.appended.append(record)

    async def flush(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.flushes.append((len(self.appended), future))
        await future

    def write(self) -> None:
        for count, future in self.flushes:
            self.written = self.appended[:count]
            future.set_result(None)
        self.flushes.clear()


class Client:
    """Follows an answer; `sent` has each frame with the number of tokens in the log by then."""

    def __init__(self, log: SlowLog) -> None:
        self.log = log
        self.sent: list[tuple[bytes, int]] = []

    async def send(self, message: Any) -> None:
        if body := message.get("body"):
            self.sent.append((body, sum(isinstance(record, Event) for record in self.log.written)))


def _answer(log: SlowLog) -> KeptAnswer:
    answer = KeptAnswer(HEAD, log, lambda _: None)  # type: ignore[arg-type]
    answer.body.is_whole.set()
    return answer


async def _token(answer: KeptAnswer, index: int) -> None:
    answer.record(index % 2, protocol.Token("a1", index, str(index), index))
    await answer.rendering.take({"type": "http.response.body", "body": b"%d" % index, "more_body": True})


async def _turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("answers", [1, 2])
async def test_frame_of_a_resumable_answer_is_not_sent_before_its_token_is_on_disk(answers, monkeypatch):
    monkeypatch.setattr(kept_answer, "MAX_WRITE_S", 30.0)
    log = SlowLog()
    answer, client = _answer(log), Client(log)
    answer.accept(answers)
    await answer.rendering.take({"type": "http.response.start", "status": 200, "headers": []})
    following = asyncio.ensure_future(
        answer.rendering.copy_to(client.send, 0, lambda: False, answer.wait_until_written)
    )
    for index in range(3):
        await _token(answer, index)
        await _turns()
        assert len(client.sent) == index
        while len(client.sent) == index:
            await _turns()
            log.write()
    assert client.sent == [(b"0", 1), (b"1", 2), (b"2", 3)]
    following.cancel()


async def test_disk_that_does_not_respond_delays_only_one_frame_of_a_resumable_answer(monkeypatch):
    monkeypatch.setattr(kept_answer, "MAX_WRITE_S", 0.01)
    log = SlowLog()
    answer = _answer(log)
    answer.accept(1)
    await answer.wait_until_written()
    assert len(log.flushes) == 1
    async with asyncio.timeout(5):
        for index in range(10_000):
            await _token(answer, index)
            await answer.wait_until_written()
    assert len(log.flushes) == 1
    log.write()
    await _turns()
    asyncio.get_running_loop().call_soon(log.write)
    await answer.wait_until_written()


@pytest.mark.parametrize("is_detached", [True, False])
async def test_answer_that_another_gateway_continues_does_not_wait_for_the_disk(is_detached, monkeypatch):
    monkeypatch.setattr(kept_answer, "MAX_WRITE_S", 0.01)
    log = SlowLog()
    answer = _answer(log)
    if is_detached:
        answer.detach()
    await _token(answer, 0)
    await answer.wait_until_written()
    assert len(log.flushes) == (0 if is_detached else 1)
