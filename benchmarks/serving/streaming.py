"""Send a streamed chat completion to a server with OpenAI's API, or with a similar one, and read its answer.

Servers with a similar API may leave out the `finish_reason`, or the `usage` at the end. Therefore both a
`finish_reason` and `[DONE]` count as the end of an answer; and if the number of tokens is missing, the tokens
of the text are counted.
"""

from __future__ import annotations

import asyncio
import json
import time
from functools import cache
from typing import Any

import aiohttp
from tokenizers import Tokenizer

from benchmarks.client.reading import Answer
from benchmarks.client.requests import MODEL
from benchmarks.processes.gateway import installed_models

CHAT = "/v1/chat/completions"
TIMEOUT_S = 600.0


async def stream(
    session: aiohttp.ClientSession, url: str, body: dict[str, Any], answer: Answer | None = None
) -> Answer:
    """Send a request and return its answer. A failure of the server or the network is described in the
    answer's `fault`.

    If `answer` is given, it is filled while the text arrives, so that the caller can watch it.
    """
    answer = answer or Answer()
    try:
        async with asyncio.timeout(TIMEOUT_S), session.post(url + CHAT, json=body) as response:
            if response.status != 200:
                answer.fault = f"{response.status}: {(await response.text())[:200]}"
            else:
                async for line in response.content:
                    read_line(answer, line, time.monotonic())
    except TimeoutError:
        answer.fault = f"no end within {TIMEOUT_S:g} s"
    except (aiohttp.ClientError, ValueError, OSError) as error:
        answer.fault = f"{type(error).__name__}: {error}"
    return answer


def read_line(answer: Answer, line: bytes, at: float) -> None:
    """Add one line of a stream, received at the time `at`, to an answer. Raises ValueError if the line's data
    is not JSON.
    """
    data = line.strip().removeprefix(b"data:").strip()
    if data == b"[DONE]":
        if not answer.finished:
            answer.end("done")
    elif data.startswith(b"{"):  # not a keep-alive comment or the name of an event
        said = json.loads(data)
        if said.get("error"):
            answer.fault = json.dumps(said["error"])[:200]
        for choice in said.get("choices") or ():
            answer.add((choice.get("delta") or {}).get("content") or "", at)
            if choice.get("finish_reason"):
                answer.end(choice["finish_reason"])
        if said.get("usage"):
            answer.tokens = said["usage"].get("completion_tokens") or answer.tokens


def tokens_of(answer: Answer) -> int:
    """Return how many tokens an answer has: the number that the server reports, or else the number of tokens
    in its text.
    """
    return answer.tokens or len(_tokenizer().encode(answer.text, add_special_tokens=False).ids)


@cache
def _tokenizer() -> Any:
    return Tokenizer.from_file(str(installed_models() / MODEL.replace(":", "__") / "tokenizer.json"))
