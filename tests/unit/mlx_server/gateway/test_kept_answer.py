"""What a kept answer waits for before its client is sent anything."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mlx_server.gateway.answer_log import FORMAT, Accepted, NoLog
from mlx_server.gateway.kept_answers.kept_answer import KeptAnswer

HEAD = Accepted(FORMAT, "id", 0.0, "POST", "/api/chat", "", (), b"", 1, None, "", "0")


class SlowLog(NoLog):
    """A log that has written what it was given when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[asyncio.Future[None]] = []

    async def flush(self) -> None:
        self.waiting.append(asyncio.get_running_loop().create_future())
        await self.waiting[-1]

    async def write(self) -> None:
        await asyncio.sleep(0)
        for future in self.waiting:
            future.set_result(None)
        self.waiting.clear()
        for _ in range(5):
            await asyncio.sleep(0)


async def _frame(body: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": True}


@pytest.mark.parametrize(("answers", "sent_at_once"), [(1, [b"a", b"b"]), (2, [b"a"])])
async def test_frames_of_several_answers_are_sent_after_their_events_are_written(answers, sent_at_once):
    """A gateway that was killed had sent frames of two answers that the next one made in another order."""
    log, sent = SlowLog(), []
    answer = KeptAnswer(HEAD, log, lambda over: None)

    async def send(message: Any) -> None:
        sent.append(message.get("body"))

    answer.accept(answers)
    await answer.rendering.take({"type": "http.response.start", "status": 200, "headers": []})
    await answer.rendering.take(await _frame(b"a"))
    copying = asyncio.ensure_future(
        answer.rendering.copy_to(send, 0, lambda: False, answer.wait_until_written)
    )
    await asyncio.sleep(0)
    assert sent == []
    for _ in range(3):
        await log.write()
    assert sent[1:] == [b"a"]
    await answer.rendering.take(await _frame(b"b"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert sent[1:] == sent_at_once
    await log.write()
    assert sent[1:] == [b"a", b"b"]
    copying.cancel()
