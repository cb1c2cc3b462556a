"""What a call makes of a backend that thinks, is busy, refuses the request or is slow, and whom it blames."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.errors import (
    BackendBusy,
    BackendError,
    BackendFailed,
    BackendUnavailable,
    BatchTimedOut,
    MachineTooSmall,
    RequestRejected,
)
from orchestrator.llm.breaker import BackendBreakerState
from tests.unit.orchestrator.llm.stand_in_session import (
    DONE,
    Reply,
    Session,
    ask,
    broken_off,
    client,
    refused,
    said,
)

GIB = 2**30


def thinks_for(tokens: int) -> Callable[[str, dict[str, Any]], Reply]:
    """Return the answers of a model that thinks for this many tokens, whatever the request says."""

    def answer(url: str, body: dict[str, Any]) -> Reply:
        thinking = {"message": {"content": "", "thinking": "Let me see."}}
        if body["options"]["num_predict"] <= tokens:
            return Reply([thinking, {**DONE, "done_reason": "length"}])
        return Reply([thinking, {"message": {"content": "Paris."}}, DONE])

    return answer


async def test_chat_request_asks_the_model_not_to_think():
    """Thinking used up the tokens of every answer, so that every task failed."""
    session = Session(lambda url, body: said("Paris."))
    assert await ask(client(session)[0]) == "Paris."
    assert session.asked[0][1]["think"] is False


async def test_chat_with_a_model_that_thinks_all_the_same_gets_more_tokens():
    session = Session(thinks_for(1000))
    one, _ = client(session)
    assert [await ask(one), await ask(one)] == ["Paris.", "Paris."]
    assert session.token_limits() == [64, 2112, 2112]


async def test_chat_with_a_model_that_thinks_without_end_is_rejected_and_does_not_blame_the_backend():
    """The breaker of the healthy backend opened, also for embeddings."""
    session = Session(thinks_for(100_000))
    one, board = client(session)
    for _ in range(4):
        with pytest.raises(RequestRejected, match="m on mlx thinks although it is asked not to"):
            await ask(one)
    assert session.token_limits() == [64, *[2112] * 4]
    assert board.breakers["mlx"].state is BackendBreakerState.CLOSED


@pytest.mark.parametrize(
    ("reply", "retry_after_s"),
    [
        (refused(503, retry_after="60"), 60.0),
        (refused(429, retry_after="7"), 7.0),
        (refused(503, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"), 0.0),
        (refused(503), 0.0),
        (broken_off("overloaded"), 0.0),
        (broken_off("draining"), 0.0),
        (broken_off("insufficient_memory", needs_bytes=8 * GIB, limit_bytes=16 * GIB), 0.0),
    ],
)
async def test_call_that_a_busy_backend_refuses_is_retryable_and_does_not_blame_the_backend(
    reply: Reply, retry_after_s: float
):
    """After twelve such refusals, some seven minutes, a task failed."""
    one, board = client(Session(lambda url, body: reply))
    for _ in range(4):
        with pytest.raises(BackendBusy, match="The backend says why") as caught:
            await ask(one)
        assert caught.value.retry_after_s == retry_after_s
    assert board.breakers["mlx"].state is BackendBreakerState.CLOSED
    assert board.in_flight == {"mlx": 0}


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (broken_off("context_exceeded"), RequestRejected),
        (broken_off("request_cancelled"), RequestRejected),
        (broken_off("disk_full"), MachineTooSmall),
        (broken_off("insufficient_memory", needs_bytes=32 * GIB, limit_bytes=16 * GIB), MachineTooSmall),
        (refused(507, "insufficient_memory"), MachineTooSmall),
        (refused(400), RequestRejected),
        (broken_off("internal_error"), BackendFailed),
        (broken_off("model_not_found"), BackendFailed),
        (Reply([{"error": {"code": 503.5, "message": "?"}}]), BackendFailed),
        (refused(404), BackendFailed),
        (refused(408), BackendFailed),
    ],
)
async def test_failed_call_raises_the_error_that_says_whether_another_try_or_machine_can_help(
    reply: Reply, kind: type[BackendError]
):
    with pytest.raises(kind) as caught:
        await ask(client(Session(lambda url, body: reply))[0])
    assert type(caught.value) is kind


def timed_out(url: str, body: dict[str, Any]) -> Reply:
    raise TimeoutError


async def test_embedding_of_several_texts_that_times_out_does_not_blame_a_living_backend():
    """A healthy server was reported as down, and its breaker opened for tasks too."""
    one, board = client(Session(timed_out))
    for _ in range(4):
        with pytest.raises(BatchTimedOut, match="mlx is alive, but did not answer /api/embed within 180 s"):
            await one.embed("m", ["a", "b"])
    assert board.backends[0].healthy
    assert board.breakers["mlx"].state is BackendBreakerState.CLOSED


async def test_embedding_of_one_text_that_times_out_counts_as_a_failed_call_of_a_living_backend():
    one, board = client(Session(timed_out))
    for _ in range(3):
        with pytest.raises(BackendUnavailable, match="is alive"):
            await one.embed("m", ["a"])
    assert board.backends[0].healthy
    assert board.breakers["mlx"].state is BackendBreakerState.OPEN


async def test_embedding_that_times_out_at_a_dead_backend_reports_the_backend_as_lost():
    session = Session(timed_out)
    session.is_alive = False
    one, board = client(session)
    with pytest.raises(BackendUnavailable, match="mlx did not answer /api/embed"):
        await one.embed("m", ["a", "b"])
    assert not board.backends[0].healthy


async def test_search_calls_do_not_wait_for_the_answers_that_are_being_written():
    """Every search waited 10 s, and then used words alone."""

    def answer(url: str, body: dict[str, Any]) -> Reply:
        if url.endswith("/api/embed"):
            return Reply([{"embeddings": [[1.0, 0.0]] * len(body["input"])}])
        if url.endswith("/v1/rerank"):
            return Reply([{"results": [{"index": 0, "relevance_score": 1.0}]}])
        return said("Paris.")

    session = Session(answer)
    session.holds.clear()
    one, _ = client(session)
    chats = [asyncio.create_task(ask(one)) for _ in range(2)]
    async with asyncio.timeout(5):
        for _ in chats:
            await session.chats_begun.acquire()
        assert await one.embed("m", ["question"]) == [[1.0, 0.0]]
        assert await one.rerank("m", "question", ["document"]) == [1.0]
    update = asyncio.create_task(one.embed("m", ["many", "texts"]))
    await asyncio.sleep(0.01)
    assert not update.done()  # the knowledge update waits for its turn
    session.holds.set()
    assert await asyncio.gather(*chats) == ["Paris.", "Paris."]
    assert len(await update) == 2
