"""Count the requests that are lost after a `kill -9`, and measure how long it takes until text arrives again.

    python -m benchmarks.serving.killed [ROUNDS [SUBJECT …]]

SUBJECT is `vestal` or a peer, which is a server that Vestal is compared with; by default, all take part. Four
streams are running when Vestal's engine, or the process of a peer, is killed. A peer is started again at
once, as the fastest supervisor would do it. Its clients have lost their requests, and a new request is sent
until one gets text. A client of Vestal waits on its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import time

import aiohttp

from benchmarks.client.reading import Answer
from benchmarks.figures import Better
from benchmarks.scenario import Log, Scenario, Subjects, run_alone
from benchmarks.serving.asking import request, story, warm_up
from benchmarks.serving.servers import Server
from benchmarks.serving.starting import measure_in_rounds
from benchmarks.serving.streaming import TIMEOUT_S, stream

STREAMS, TOKENS = 4, 48
PARTS_BEFORE = 4
LOOK_S, AGAIN_S = 0.005, 0.1
LOST, SILENCE = "serving/killed/requests_lost_of_4", "serving/killed/text_again_s"
UNITS: dict[str, tuple[str, Better]] = {LOST: ("requests", "lower"), SILENCE: ("s", "lower")}


def measure(log: Log, subjects: Subjects, rounds: int) -> None:
    measure_in_rounds(
        log, subjects, rounds, UNITS, warm_up, lambda server, number: asyncio.run(kill_under_load(server))
    )


async def kill_under_load(server: Server) -> dict[str, float]:
    """Kill the server while it streams, and wait until it serves again. Return two figures by name: LOST, the
    number of requests that were lost, and SILENCE, the seconds from the kill until text arrived again.

    If a request was lost, the text meant by SILENCE is the first text of a new request. If none was lost,
    SILENCE is the median of the times after which the streams continued.

    Raises RuntimeError if a stream ends before the kill, or if the server cannot be killed or started again,
    and TimeoutError if text or the server does not come back in time.
    """
    streams = [Answer() for _ in range(STREAMS)]
    async with aiohttp.ClientSession() as session:
        sent = [
            asyncio.ensure_future(stream(session, server.url, request(server, story(), TOKENS), answer))
            for answer in streams
        ]
        while min(len(answer.pieces_at) for answer in streams) < PARTS_BEFORE:
            if any(one.done() for one in sent):
                raise RuntimeError(next((a.fault for a in streams if a.fault), "A stream ended too early."))
            await asyncio.sleep(LOOK_S)
        killed_at = time.monotonic()
        server.kill()
        restart = asyncio.ensure_future(asyncio.to_thread(server.until_restarted))
        await asyncio.gather(*sent)
        lost = [answer for answer in streams if not answer.finished]
        again_at = await _text_again_at(session, server) if lost else _next_parts_at(streams, killed_at)
        await restart
    return {LOST: float(len(lost)), SILENCE: again_at - killed_at}


def _next_parts_at(streams: list[Answer], killed_at: float) -> float:
    """Return the median of the times at which the streams received their first part after `killed_at`, the
    time of the kill, in monotonic seconds. A stream that received none, because it already had all its text,
    counts with `killed_at`.
    """
    after = [next((at for at in answer.pieces_at if at > killed_at), killed_at) for answer in streams]
    return statistics.median(after)


async def _text_again_at(session: aiohttp.ClientSession, server: Server) -> float:
    """Send requests until one is answered. Return the time of its first text, in monotonic seconds. Raises
    TimeoutError after TIMEOUT_S seconds.
    """
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        answer = Answer()
        with contextlib.suppress(OSError):
            await stream(session, server.url, request(server, story(), 4), answer)
        if answer.pieces_at and not answer.fault:
            return answer.pieces_at[0]
        await asyncio.sleep(AGAIN_S)
    raise TimeoutError(f"There is no text {TIMEOUT_S:g} s after the kill.")


SCENARIO = Scenario(
    "killed",
    "requests lost and time until text comes again when four streams lose their engine to kill -9",
    quick_s=50,
    full_s=900,
    run=measure,
    full_rounds=3,
)

if __name__ == "__main__":
    run_alone(SCENARIO, sys.argv[1:])
