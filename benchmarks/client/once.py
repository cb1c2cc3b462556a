"""Send one request and read its answer, in any dialect, streamed or whole."""

from __future__ import annotations

import asyncio
import json
import time

import aiohttp

from benchmarks.client.reading import Answer, read
from benchmarks.client.requests import ClientRequest

__all__ = ["Answer", "send"]


async def send(
    session: aiohttp.ClientSession,
    url: str,
    ask: ClientRequest,
    timeout_s: float,
    answer: Answer | None = None,
) -> Answer:
    """Send a request and return its answer. A failure of the server or the network is described in the
    answer's `fault`.

    A caller that passes an `answer` can watch it grow.
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
                read(ask.path, answer, json.loads(await response.read()), time.monotonic())
    except TimeoutError:
        answer.fault = f"no end within {timeout_s:g} s"
    except (aiohttp.ClientError, ValueError, KeyError, OSError) as error:
        answer.fault = f"{type(error).__name__}: {error}"
    return answer


def _read_line(ask: ClientRequest, answer: Answer, line: bytes) -> None:
    data = line.strip().removeprefix(b"data: ")
    if data.startswith(b"{"):  # not a keep-alive comment, the name of an event, or [DONE]
        read(ask.path, answer, json.loads(data), time.monotonic())
