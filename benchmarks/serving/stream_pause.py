"""Measure the pause of a stream across `kill -9` of its engine, with a standby engine and without.

    python -m benchmarks.serving.stream_pause [KILLS]

KILLS is how many kills are measured with a standby engine, and how many without (8 by default). One stream of
the model `smollm2:135m` runs at a time. The pause is measured at the client: it is the longest time between
two successive parts of the text, from the last part before the kill to the end of the stream.
"""

from __future__ import annotations

import asyncio
import sys
import time

import aiohttp

from benchmarks.chaos.pauses import Death, longest_gap
from benchmarks.client.reading import Answer
from benchmarks.figures import VESTAL
from benchmarks.scenario import Log, Scenario, Subjects, run_alone
from benchmarks.serving.asking import request, story, warm_up
from benchmarks.serving.contest import Contest
from benchmarks.serving.servers import Server
from benchmarks.serving.starting import running
from benchmarks.serving.streaming import stream

VARIANTS = {
    VESTAL: {"VESTAL_MLX__WARM_SPARE": "true"},
    f"{VESTAL} without standby": {"VESTAL_MLX__WARM_SPARE": "false"},
}
PARTS_BEFORE, TOKENS = 12, 48
SETTLED_S = 5.0
"""Seconds before a kill, which are enough for the next standby engine to start."""
ROW = "serving/pause_of_a_stream_s"


def measure(log: Log, subjects: Subjects, rounds: int) -> None:
    with running(log, subjects, [ROW], VARIANTS, peers=()) as servers:
        contest = Contest(log, servers)
        contest.warm_up(warm_up)
        for number in range(1, rounds + 1):
            time.sleep(SETTLED_S)
            contest.turn(number, {ROW: ("s", "lower")}, lambda server: {ROW: asyncio.run(pause_s(server))})


async def pause_s(server: Server) -> float:
    """Start one stream, and kill the engine that computes it when PARTS_BEFORE parts of the text have
    arrived. Return the longest time in seconds between two successive parts of the text, from the last part
    before the kill to the end of the stream. Raises RuntimeError if no text arrives after the kill.
    """
    answer = Answer()
    async with aiohttp.ClientSession() as session:
        sent = asyncio.ensure_future(stream(session, server.url, request(server, story(), TOKENS), answer))
        while len(answer.pieces_at) < PARTS_BEFORE and not sent.done():  # noqa: ASYNC110 - `stream` fills the list
            await asyncio.sleep(0.005)
        at = time.monotonic()
        server.kill()
        await sent
    gap = longest_gap(answer.pieces_at, Death("KILL", at))
    if gap is None:
        raise RuntimeError(answer.fault or "The stream did not go on after the kill.")
    return gap[1] - gap[0]


SCENARIO = Scenario(
    "stream_pause",
    "pause of a stream across kill -9 of its engine, with a standby engine and without",
    quick_s=30,
    full_s=240,
    run=measure,
    full_rounds=8,
)

if __name__ == "__main__":
    run_alone(SCENARIO, sys.argv[1:])
