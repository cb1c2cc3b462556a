"""Measure the tokens per second of seven short answers together, alone and while an answer to a prompt of
6,000 tokens runs.

    python -m benchmarks.serving.mixed_lengths [ROUNDS [SUBJECT …]]

SUBJECT is `vestal` or the name of a server that it is compared with; by default, all take part. A server that
keeps all running answers in one array computes the attention of the short ones as if they were long.
"""

from __future__ import annotations

import asyncio
import sys

import aiohttp

from benchmarks.figures import Better
from benchmarks.scenario import Log, Scenario, Subjects, run_alone
from benchmarks.serving.asking import (
    Messages,
    ask,
    long_prompt,
    request,
    running_answer,
    story,
    warm_up,
)
from benchmarks.serving.servers import Server
from benchmarks.serving.starting import measure_in_rounds
from benchmarks.serving.streaming import tokens_of

PROMPT_TOKENS = 6_000
SHORT_ANSWERS, SHORT_TOKENS = 7, 32
MOST_TOKENS = 1_500
STILL_RUNS_S = 2.0
"""A long answer without any part in this time has ended."""
ROW = "serving/mixed_lengths/{}"
ALONE, BESIDE = ROW.format("alone"), ROW.format("beside_a_long_answer")
UNITS: dict[str, tuple[str, Better]] = {ALONE: ("tok/s", "higher"), BESIDE: ("tok/s", "higher")}


def measure(log: Log, subjects: Subjects, rounds: int) -> None:
    measure_in_rounds(
        log, subjects, rounds, UNITS, warm_up, lambda server, number: asyncio.run(speeds(server))
    )


async def speeds(server: Server) -> dict[str, float]:
    """Return the tokens per second of SHORT_ANSWERS short answers together, alone and while a long answer
    runs, by the names of the figures.

    Raises RuntimeError if a request fails, or if the long answer ends before the short ones have.
    """
    async with aiohttp.ClientSession() as session:
        found = {ALONE: await short_tokens_per_s(session, server)}
        async with running_answer(session, server, request(server, long_story(), MOST_TOKENS), 1) as long:
            found[BESIDE] = await short_tokens_per_s(session, server)
            parts = len(long.pieces_at)
            await asyncio.sleep(STILL_RUNS_S)
            if len(long.pieces_at) == parts:
                raise RuntimeError("The long answer ended before the short ones.")
    return found


def long_story() -> Messages:
    """Return a prompt of about PROMPT_TOKENS tokens with a long answer: a numbered list, then the request for
    a story.
    """
    (context,), (asked,) = long_prompt(PROMPT_TOKENS), story()
    return [{"role": "user", "content": f"{context['content']}\n\n{asked['content']}"}]


async def short_tokens_per_s(session: aiohttp.ClientSession, server: Server) -> float:
    """Send SHORT_ANSWERS short requests at the same time. Return the tokens of all answers, divided by the
    seconds from the first text of any of them to the last.
    """
    bodies = [request(server, story(), SHORT_TOKENS) for _ in range(SHORT_ANSWERS)]
    answers = await asyncio.gather(*(ask(session, server, body) for body in bodies))
    began = min(answer.pieces_at[0] for answer in answers)
    return sum(map(tokens_of, answers)) / (max(answer.pieces_at[-1] for answer in answers) - began)


SCENARIO = Scenario(
    "mixed_lengths",
    "tokens a second of seven short answers, alone and beside an answer to 6,000 tokens",
    quick_s=0,  # not in a quick run: reading the long prompt takes some servers minutes
    full_s=1200,
    run=measure,
    full_rounds=2,
)

if __name__ == "__main__":
    run_alone(SCENARIO, sys.argv[1:])
