"""Build prompts, send them to a server, and measure what its clients observe: tokens per second and the time
to the first token.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp

from benchmarks.client.reading import Answer
from benchmarks.client.requests import FILLER, SUBJECTS
from benchmarks.serving.servers import Server
from benchmarks.serving.streaming import stream, tokens_of

TOKENS_AN_ITEM, TOKENS_AROUND = 29.2, 40
LOOK_S = 0.005
_numbers = itertools.count(time.time_ns() // 1_000_000 % 1_000_000)
"""Numbers that begin each prompt, so that no server has seen the prompt before, in this process or an earlier
one.
"""

Messages = list[dict[str, str]]


def unused_number() -> int:
    """Return a number that no earlier prompt contains. A prompt that begins with it is in no server's prompt
    cache.
    """
    return next(_numbers)


def numbered_items(first: int, end: int) -> str:
    """Return the items `first` to `end` - 1 of a numbered list, one line of about 29 tokens each."""
    return "\n".join(FILLER.format(n=n) for n in range(first, end))


def story() -> Messages:
    """Return a short prompt for prose, of about 30 tokens without the model's own system prompt."""
    number = unused_number()
    text = f"{number}. Write a long story about {SUBJECTS[number % len(SUBJECTS)]}."
    return [{"role": "user", "content": text}]


def long_prompt(tokens: int) -> Messages:
    """Return a prompt of about `tokens` tokens, most of them a numbered list. If `tokens` does not suffice
    for one item of the list, return the prompt of about 30 tokens that the function `story` returns.
    """
    items = round((tokens - TOKENS_AROUND) / TOKENS_AN_ITEM)
    if items < 1:
        return story()
    content = f"List {unused_number()}:\n{numbered_items(1, items + 1)}\nWhat does the keeper note?"
    return [{"role": "user", "content": content}]


def request(server: Server, messages: Messages, tokens: int, **more: Any) -> dict[str, Any]:
    """Return the body of a greedy, streamed chat completion of up to `tokens` tokens. `more` has further
    fields.
    """
    body: dict[str, Any] = {"model": server.model, "stream": True, "temperature": 0, "max_tokens": tokens}
    return body | {"messages": messages, "stream_options": {"include_usage": True}, **more}


async def ask(session: aiohttp.ClientSession, server: Server, body: dict[str, Any]) -> Answer:
    """Send a request and return its answer. Raises RuntimeError if the request failed or the answer has no
    text.
    """
    answer = await stream(session, server.url, body)
    if answer.fault or not answer.pieces_at:
        raise RuntimeError(answer.fault or "The answer has no text.")
    return answer


@contextlib.asynccontextmanager
async def running_answer(
    session: aiohttp.ClientSession, server: Server, body: dict[str, Any], parts: int
) -> AsyncIterator[Answer]:
    """Send a request, wait until its answer has `parts` parts, and let it run during the `async with` block,
    which gets it. Then cancel the request.

    Raises RuntimeError if the answer ends before it has so many parts, or fails before the block ends.
    """
    answer = Answer()
    task = asyncio.ensure_future(stream(session, server.url, body, answer))
    try:
        while len(answer.pieces_at) < parts and not task.done():  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        if task.done():
            raise RuntimeError(answer.fault or "The answer ended before it was to run beside others.")
        yield answer
        if task.done() and answer.fault:
            raise RuntimeError(answer.fault)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def answers(server: Server, requests: Sequence[dict[str, Any]]) -> tuple[list[Answer], float, float]:
    """Send requests to the server at the same time. Return their answers, the time at which they were sent,
    and the time at which the last answer ended, in monotonic seconds. Raises RuntimeError if a request fails
    or an answer has no text.
    """

    async def all_of_them() -> tuple[list[Answer], float, float]:
        async with aiohttp.ClientSession() as session:
            began = time.monotonic()
            found = await asyncio.gather(*(ask(session, server, one) for one in requests))
            return list(found), began, time.monotonic()

    return asyncio.run(all_of_them())


def tokens_per_s(
    server: Server, requests: Sequence[dict[str, Any]], *, from_first_text: bool = False
) -> float:
    """Send the requests at the same time. Return the number of tokens in all answers together, divided by the
    seconds from sending the requests to the end of the last answer. Raises RuntimeError if a request fails or
    an answer has no text.

    With `from_first_text`, the seconds begin with the first text of any answer instead, to leave out the time
    that the server computes the prompts. If a server reports no number of tokens, as llama-cpp-python does
    not, the tokens of its text are counted.
    """
    found, began, ended = answers(server, requests)
    if from_first_text:
        began = min(answer.pieces_at[0] for answer in found)
    return sum(map(tokens_of, found)) / (ended - began)


def first_token_s(server: Server, messages: Messages, tokens: int = 4) -> float:
    """Send a request for an answer of up to `tokens` tokens, and read the answer to its end. Return the
    seconds from sending the request to the first text of the answer. Raises RuntimeError if the request fails
    or the answer has no text.
    """
    found, began, _ = answers(server, [request(server, messages, tokens)])
    return found[0].pieces_at[0] - began


def warm_up(server: Server) -> None:
    """Send a short request, because the first request to any server loads the model and compiles kernels."""
    first_token_s(server, story(), 8)
