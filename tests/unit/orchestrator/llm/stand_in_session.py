"""A stand-in for the HTTP session to one or two backends, whose replies a test chooses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from orchestrator.llm.backend import Backend
from orchestrator.llm.client import LlmClient
from orchestrator.llm.health import HealthBoard

BACKENDS = tuple(
    Backend(name, used=True, healthy=True, models=frozenset({"m:latest"})) for name in ("mlx", "ollama")
)
DONE = {"message": {"content": ""}, "done": True, "done_reason": "stop"}


@dataclass
class Reply:
    """A reply with these lines of JSON."""

    lines: list[dict[str, Any]]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> Reply:
        return self

    async def iter_any(self) -> AsyncIterator[bytes]:
        yield await self.read()

    async def read(self) -> bytes:
        return b"".join(json.dumps(line).encode() + b"\n" for line in self.lines)


class Session:
    """An HTTP session in which `answer` replies to each POST, and each GET is answered if `is_alive`."""

    def __init__(self, answer: Callable[[str, dict[str, Any]], Reply]) -> None:
        self.answer = answer
        self.is_alive = True
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.chats_begun = asyncio.Semaphore(0)
        self.holds = asyncio.Event()
        self.holds.set()

    @asynccontextmanager
    async def get(self, url: str, **options: Any) -> Any:
        if not self.is_alive:
            raise TimeoutError
        yield Reply([])

    @asynccontextmanager
    async def post(self, url: str, json: dict[str, Any], **options: Any) -> Any:
        self.asked.append((url, json))
        if url.endswith("/api/chat"):
            self.chats_begun.release()
            await self.holds.wait()  # while it is not set, answers are being written
        yield self.answer(url, json)

    def token_limits(self) -> list[int]:
        return [body["options"]["num_predict"] for _, body in self.asked]


def client(session: Any, backends: tuple[Backend, ...] = BACKENDS[:1]) -> tuple[LlmClient, HealthBoard]:
    board = HealthBoard(session, {backend.name: f"http://{backend.name}" for backend in backends})
    board.backends = backends

    async def fresh(max_age_s: float = 0) -> tuple[Backend, ...]:
        return board.backends

    board.fresh = fresh  # type: ignore[method-assign]  # the health is not checked
    return LlmClient(session, board, 2), board


def said(text: str) -> Reply:
    return Reply([{"message": {"content": text}}, DONE])


def refused(status: int, code: str = "", retry_after: str = "") -> Reply:
    headers = {"Retry-After": retry_after} if retry_after else {}
    return Reply([{"error": "The backend says why.", "code": code}], status, headers)


def broken_off(code: str, **fields: Any) -> Reply:
    return Reply(
        [{"message": {"content": "half"}}, {"error": "The backend says why.", "code": code, **fields}]
    )


async def ask(one: LlmClient) -> str:
    return await one.chat("m", [{"role": "user", "content": "the capital of France?"}], 64)
