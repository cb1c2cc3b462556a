"""Sends one request and reads its answer, whichever dialect and whether streamed or whole."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from benchmarks.chaos.asks import Ask


@dataclass
class Answer:
    """`finished`: the server itself said so. `pieces_at`: monotonic times of the text's pieces."""

    text: str = ""
    finished: bool = False
    reason: str = ""
    tokens: int = 0
    fault: str = ""
    ids: set[str] = field(default_factory=set)
    pieces_at: list[float] = field(default_factory=list)


async def send(
    session: aiohttp.ClientSession, url: str, ask: Ask, timeout_s: float, answer: Answer | None = None
) -> Answer:
    """Never raises for what the server or the network does: that is the answer's `fault`.

    An `answer` that is given can be watched as it grows.
    """
    answer = answer or Answer()
    try:
        async with asyncio.timeout(timeout_s), session.post(url + ask.path, json=ask.body) as response:
            if response.status != 200:
                answer.fault = f"{response.status}: {(await response.text())[:200]}"
            elif ask.streams:
                async for line in response.content:
                    _read_line(ask, answer, line)
            else:
                _read(ask, answer, json.loads(await response.read()))
    except TimeoutError:
        answer.fault = f"no end within {timeout_s:g} s"
    except (aiohttp.ClientError, ValueError, KeyError, OSError) as error:
        answer.fault = f"{type(error).__name__}: {error}"
    return answer


def _read_line(ask: Ask, answer: Answer, line: bytes) -> None:
    data = line.strip().removeprefix(b"data: ")
    if data.startswith(b"{"):  # neither a comment that keeps the line open, nor [DONE]
        _read(ask, answer, json.loads(data))


def _read(ask: Ask, answer: Answer, said: dict[str, Any]) -> None:
    if "error" in said:
        answer.fault = json.dumps(said["error"])[:200]
    elif ask.path.startswith("/api/"):
        _read_ollama(answer, said)
    else:
        _read_openai(answer, said)


def _read_ollama(answer: Answer, said: dict[str, Any]) -> None:
    _add(answer, said["message"]["content"] if "message" in said else said["response"])
    if said["done"]:
        answer.finished, answer.reason, answer.tokens = True, said["done_reason"], said["eval_count"]


def _read_openai(answer: Answer, said: dict[str, Any]) -> None:
    answer.ids.add(said["id"])
    for choice in said["choices"]:
        part = choice.get("delta") or choice.get("message") or choice
        _add(answer, part.get("content") or part.get("text") or "")
        if choice["finish_reason"]:
            answer.finished, answer.reason = True, choice["finish_reason"]
    if said.get("usage"):
        answer.tokens = said["usage"]["completion_tokens"]


def _add(answer: Answer, text: str) -> None:
    if text:
        answer.text += text
        answer.pieces_at.append(time.monotonic())
