"""What backends may reply: any bytes, which are not always the expected JSON."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from orchestrator.errors import EmptyAnswer
from orchestrator.llm.backend import Backend
from orchestrator.llm.check import check_backend
from orchestrator.llm.client import LlmClient
from orchestrator.llm.health import HealthBoard
from orchestrator.llm.json_body import json_of

TOO_DEEP = b"[" * 200_000
MLX = Backend("mlx", used=True, healthy=True, models=frozenset({"m:latest"}))


class Reply:
    """A reply with this body."""

    def __init__(self, body: bytes, status: int = 200) -> None:
        self.body = body
        self.status = status

    async def read(self) -> bytes:
        return self.body


class Session:
    """An HTTP session in which each request gets the same reply."""

    def __init__(self, body: bytes, status: int = 200) -> None:
        self._reply = Reply(body, status)

    @asynccontextmanager
    async def get(self, url: str, **options: Any) -> Any:
        yield self._reply

    post = get


def client(body: bytes) -> LlmClient:
    session: Any = Session(body)
    board = HealthBoard(session, {"mlx": "http://mlx"})

    async def fresh(max_age_s: float = 0) -> tuple[Backend, ...]:
        return (MLX,)

    board.fresh = fresh  # type: ignore[method-assign]  # the backend stays healthy
    return LlmClient(session, board, 1)


@pytest.mark.parametrize("body", [TOO_DEEP, b"", b"\xff", b"{", b"9" * 5000])
async def test_reply_body_that_is_no_readable_json_is_none(body: bytes):
    reply: Any = Reply(body)
    assert await json_of(reply) is None


async def test_backend_check_with_deeply_nested_json_finds_the_backend_unhealthy():
    """A worker ended by RecursionError, as often as it was started."""
    session: Any = Session(TOO_DEEP)
    found = await check_backend(session, "mlx", "http://mlx", {})
    assert (found.healthy, found.detail) == (False, "/api/tags answers 200")


async def test_backend_check_of_a_host_name_that_cannot_be_looked_up_finds_the_backend_unhealthy():
    async with aiohttp.ClientSession() as session:
        found = await check_backend(session, "mlx", "http://host..name:1", {})
    assert not found.healthy


async def test_context_length_in_deeply_nested_json_is_unknown():
    assert await client(TOO_DEEP).context_tokens("m") is None


@pytest.mark.parametrize(
    "results",
    [
        "[1, 2]",
        '[{"index": 0, "relevance_score": 1%s}, {"index": 1, "relevance_score": 1}]' % ("0" * 400),
        '[{"index": 0, "relevance_score": "high"}, {"index": 1, "relevance_score": NaN}]',
        '{"index": 0}',
    ],
)
async def test_reranking_with_malformed_scores_is_an_empty_answer(results: str):
    with pytest.raises(EmptyAnswer, match="no score for some"):
        await client(b'{"results": %s}' % results.encode()).rerank("m", "query", ["a", "b"])
