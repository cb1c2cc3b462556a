"""What clients receive when the gateway stops and cancels the runs of their requests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mlx_server.gateway.answer_log import NoLog
from mlx_server.gateway.kept_answers.keeper import AnswerKeeper
from mlx_server.gateway.kept_answers.kept_answer import KeptAnswer
from mlx_server.gateway.kept_answers.middleware import follow
from tests.disks.answer_log_fixtures import Logs, accepted
from tests.unit.mlx_server.gateway.kept_answers.kept_routes import LAST, START, Gateway, frame, turns
from tests.unit.mlx_server.gateway.kept_answers.test_keep_alives import HEAD
from vestal.web.http_error import HttpError

ID = "a" * 32


@pytest.mark.parametrize("is_waited_for", [False, True])
async def test_client_of_a_cancelled_run_gets_503_or_exactly_what_was_already_sent_without_an_added_end(
    is_waited_for,
):
    """A body was sent without a start, which the server reported as a fault of the application; and a stream
    that was cut off ended like a complete one.
    """
    goes_on = asyncio.Event()

    async def route(scope: Any, receive: Any, send: Any) -> None:
        try:
            if dict(scope["headers"])[b"idempotency-key"] != b"prepared":
                await send(START)
                await send(frame(b"Hel"))
            if dict(scope["headers"])[b"idempotency-key"] == b"complete":
                await send(LAST)
            await asyncio.Event().wait()
        finally:
            if is_waited_for:
                await goes_on.wait()

    gateway = Gateway(NoLog(), route)
    prepared, begun, complete = [gateway.client(key) for key in (b"prepared", b"begun", b"complete")]
    await turns()
    closing = asyncio.ensure_future(gateway.keeper.close())
    await turns()
    goes_on.set()
    await closing
    await asyncio.wait_for(asyncio.gather(prepared.task, begun.task, complete.task), 5)
    assert (prepared.status, "stopping" in prepared.text, prepared.is_complete) == (503, True, True)
    assert (begun.status, begun.text, begun.is_complete) == (200, "Hel", False)
    assert (complete.status, complete.text, complete.is_complete) == (200, "Hel", True)


async def waits(scope: Any, receive: Any, send: Any) -> None:
    """Answer no request."""
    await asyncio.Event().wait()


async def test_client_whose_request_is_cancelled_before_its_first_step_gets_503():
    """A request that came in the moment of the gateway's end waited for its answer until the process ended,
    and then got a 500 of the server.
    """
    gateway = Gateway(NoLog(), waits)
    client = gateway.client()
    while not gateway.keeper.running:  # noqa: ASYNC110 - the run's task has not begun by then
        await asyncio.sleep(0)
    await gateway.keeper.close()
    await asyncio.wait_for(client.task, 5)
    assert (client.status, "stopping" in client.text, client.is_complete) == (503, True, True)


@pytest.mark.parametrize("has_started", [False, True])
async def test_client_served_when_the_process_ends_gets_503_unless_its_response_has_begun(
    has_started,
):
    """At its end, asyncio cancels all tasks. For one without a response, the server sends a 500."""

    async def route(scope: Any, receive: Any, send: Any) -> None:
        if has_started:
            await send(START)
        await waits(scope, receive, send)

    gateway = Gateway(NoLog(), route)
    client = gateway.client()
    await turns()
    client.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client.task
    assert (client.status, client.is_complete) == ((200, False) if has_started else (503, True))
    await gateway.keeper.close()


async def test_request_for_an_answer_whose_records_are_still_being_read_at_a_handover_gets_503(
    tmp_path, monkeypatch
):
    """It ran in a gateway without an engine and a log, so its client waited until that gateway ended."""
    log = await Logs(tmp_path).open()
    keeper = AnswerKeeper(log, Logs(tmp_path).clock)
    log.begin(accepted(ID))
    read, is_reading, goes_on = log.records, asyncio.Event(), asyncio.Event()

    async def slow_disk(answer_id: str) -> Any:
        is_reading.set()
        await goes_on.wait()
        return await read(answer_id)

    monkeypatch.setattr(log, "records", slow_disk)
    asked = asyncio.ensure_future(keeper.find(ID))
    await is_reading.wait()
    keeper.detach()
    goes_on.set()
    with pytest.raises(HttpError, match="stopping") as refused:
        await asked
    assert (refused.value.status, keeper.running) == (503, ())
    await keeper.close()


@pytest.mark.parametrize("is_complete", [False, True])
@pytest.mark.parametrize("turns_later", range(5))
async def test_follower_cancelled_at_any_time_ends_cancelled_and_suspends_an_incomplete_answer(
    is_complete, turns_later
):
    """A cancellation that came while the follower ended was swallowed, and its caller went on."""
    answer = KeptAnswer(HEAD, NoLog(), lambda answer: None)
    answer.body.is_whole.set()
    await answer.rendering.take(START)

    async def send(message: Any) -> None:
        pass

    async def never() -> Any:
        await asyncio.Event().wait()

    following = asyncio.ensure_future(follow(answer, 0, never, send))
    await turns()
    if is_complete:
        answer.rendering.end()
    await turns(turns_later)
    had_ended = not following.cancel()
    await asyncio.wait([following])
    assert following.cancelled() != had_ended
    assert (answer.client_left.is_set(), answer.first_frames) == (not is_complete, [])
