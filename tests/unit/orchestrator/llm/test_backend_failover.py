"""Which backend gets a call that another one has refused, or that has killed its engine."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import BackendBusy, BackendUnavailable, EngineCrashed, RequestRejected
from orchestrator.knowledge.embedding import EmbeddingRun
from orchestrator.llm.breaker import BackendBreakerState
from tests.unit.orchestrator.conftest import Knowledge
from tests.unit.orchestrator.llm.stand_in_session import (
    BACKENDS,
    Reply,
    Session,
    ask,
    broken_off,
    client,
    refused,
    said,
)


async def test_call_that_a_busy_backend_refuses_goes_to_another_backend_at_once():
    def answer(url: str, body: dict[str, Any]) -> Reply:
        return refused(503, retry_after="60") if url.startswith("http://mlx") else said("Paris.")

    one, _ = client(Session(answer), BACKENDS)
    with pytest.raises(BackendBusy) as caught:
        await ask(one)
    assert caught.value.retry_after_s == 0.0
    assert await ask(one) == "Paris."


async def test_call_refused_by_two_busy_backends_is_retried_after_the_time_that_the_last_one_asked_for():
    """The wait was forgotten: the backend that had refused first was taken for one with room."""
    one, _ = client(Session(lambda url, body: refused(503, retry_after="60")), BACKENDS)
    waits = []
    for _ in range(3):
        with pytest.raises(BackendBusy) as caught:
            await ask(one)
        waits.append(caught.value.retry_after_s)
    assert waits == [0.0, 60.0, 60.0]


CRASHES = (broken_off("engine_crashed"), refused(500, "engine_crashed"))


@pytest.mark.parametrize("reply", CRASHES)
async def test_calls_that_kill_the_engine_open_the_breaker_after_three_in_a_row(reply: Reply):
    """An engine that died of every call was called again and again, as its breaker never opened."""
    one, board = client(Session(lambda url, body: reply))
    states = []
    for _ in range(3):
        with pytest.raises(EngineCrashed):
            await ask(one)
        states.append(board.breakers["mlx"].state)
    assert states == [BackendBreakerState.CLOSED, BackendBreakerState.CLOSED, BackendBreakerState.OPEN]
    assert board.in_flight == {"mlx": 0}


async def test_embedding_of_many_texts_that_kill_the_engine_goes_on_and_leaves_the_breaker_closed(
    knowledge: Knowledge,
):
    def answer(url: str, body: dict[str, Any]) -> Reply:
        if any("fatal" in text for text in body["input"]):
            return refused(500, "engine_crashed")
        return Reply([{"embeddings": [[1.0, 0.0]] * len(body["input"])}])

    one, board = client(Session(answer))
    texts = [*(f"fatal {n}" for n in range(3)), "harmless"]
    done = await EmbeddingRun(knowledge.vectors, one, "m", 16, lambda: 0.0).embed(texts)
    assert (done.count, list(done.refused)) == (1, texts[:3])
    assert board.breakers["mlx"].state is BackendBreakerState.CLOSED


@pytest.mark.parametrize("reply", CRASHES)
async def test_call_that_kills_the_engine_goes_to_another_backend_the_next_time(reply: Reply):
    """Both attempts went to the preferred backend, and the task failed."""
    one, board = client(
        Session(lambda url, body: reply if url.startswith("http://mlx") else said("Paris.")), BACKENDS
    )
    with pytest.raises(EngineCrashed):
        await ask(one)
    assert await ask(one) == "Paris."
    assert board.in_flight == {"mlx": 0, "ollama": 0}


async def test_call_for_which_a_machine_is_too_small_goes_to_another_backend_at_once():
    """It failed, although the other machine was large enough."""
    small = refused(507, "insufficient_memory")
    session = Session(lambda url, body: small if url.startswith("http://mlx") else said("Paris."))
    one, board = client(session, BACKENDS)
    assert await ask(one) == "Paris."
    assert board.in_flight == {"mlx": 0, "ollama": 0}


async def test_call_for_which_every_machine_is_too_small_is_rejected_after_one_call_to_each():
    session = Session(lambda url, body: refused(507, "insufficient_memory"))
    one, board = client(session, BACKENDS)
    with pytest.raises(RequestRejected, match="ollama answers 507"):
        await ask(one)
    assert [url for url, _ in session.asked] == ["http://mlx/api/chat", "http://ollama/api/chat"]
    assert board.in_flight == {"mlx": 0, "ollama": 0}


async def test_call_for_which_one_machine_is_too_small_waits_for_another_whose_breaker_is_open():
    """The task failed at once, although the larger machine was back seconds later."""
    one, board = client(Session(lambda url, body: refused(507, "insufficient_memory")), BACKENDS)
    for _ in range(3):
        board.in_flight["ollama"] += 1
        board.failed("ollama", "it rebooted", lost=False)
    with pytest.raises(BackendUnavailable, match="The breaker of ollama is open"):
        await ask(one)
    assert board.in_flight == {"mlx": 0, "ollama": 0}


async def test_call_that_a_busy_backend_refuses_after_one_that_is_too_small_is_retryable():
    def answer(url: str, body: dict[str, Any]) -> Reply:
        return refused(507) if url.startswith("http://mlx") else refused(503, retry_after="60")

    one, _ = client(Session(answer), BACKENDS)
    for _ in range(3):
        with pytest.raises(BackendBusy) as caught:
            await ask(one)
        assert caught.value.retry_after_s == 60.0
