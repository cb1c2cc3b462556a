"""Measure the pauses between the parts of a streamed answer: alone, and during the prefill of another
request's prompt of 6,000 tokens.

    python -m benchmarks.serving.pace [ROUNDS [SUBJECT …]]

SUBJECT is `vestal` or the name of a server that it is compared with; by default, all take part. A stream runs
alone for some tokens. Then the long prompt arrives, and the first token of its answer ends the measurement.
The time to that first token is also a figure, because a server may keep the pace of the stream by letting the
prompt wait.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from itertools import pairwise

import aiohttp

from benchmarks.figures import Better, percentile
from benchmarks.scenario import Log, Scenario, Subjects, run_alone
from benchmarks.serving.asking import ask, long_prompt, request, running_answer, story, warm_up
from benchmarks.serving.servers import Server
from benchmarks.serving.starting import measure_in_rounds

PROMPT_TOKENS = 6_000
ALONE_PARTS = 40
MOST_TOKENS = 1_500
ROW = "serving/inter_token_ms/{}/{}"
SLOWER = ROW.format("beside_prefill", "p99_over_p50_alone")
FIRST = "serving/inter_token_ms/beside_prefill/first_token_of_the_prompt_s"
SHARES = {"p50": 0.5, "p99": 0.99}
UNITS: dict[str, tuple[str, Better]] = {
    ROW.format(place, name): ("ms", "lower") for place in ("alone", "beside_prefill") for name in SHARES
} | {SLOWER: ("×", "lower"), FIRST: ("s", "lower")}


def measure(log: Log, subjects: Subjects, rounds: int) -> None:
    measure_in_rounds(
        log, subjects, rounds, UNITS, warm_up, lambda server, number: asyncio.run(pauses(server))
    )


async def pauses(server: Server) -> dict[str, float]:
    """Measure the pauses between the parts of a stream: first while it runs alone, then while the server
    prefills a second request with a long prompt.

    Return these figures by name: the median and the 99th percentile of the pauses in ms, for each of the two
    phases; the 99th percentile during the prefill, divided by the median alone; the seconds from sending the
    long prompt to the first token of its answer. Raises RuntimeError if a request fails, or if the stream
    ends before the long prompt is sent.
    """
    async with aiohttp.ClientSession() as session:
        body = request(server, story(), MOST_TOKENS)
        async with running_answer(session, server, body, ALONE_PARTS) as answer:
            arrived_at = time.monotonic()
            prompt = await ask(session, server, request(server, long_prompt(PROMPT_TOKENS), 1))
            first_at = prompt.pieces_at[0]
    alone, during_prefill = split(answer.pieces_at, arrived_at, first_at)
    found: dict[str, float] = {}
    for place, gaps in (("alone", alone), ("beside_prefill", during_prefill)):
        found |= {ROW.format(place, name): percentile(gaps, share) * 1e3 for name, share in SHARES.items()}
    found[SLOWER] = found[ROW.format("beside_prefill", "p99")] / found[ROW.format("alone", "p50")]
    return found | {FIRST: first_at - arrived_at}


def split(pieces_at: Sequence[float], arrived_at: float, first_at: float) -> tuple[list[float], list[float]]:
    """Return two lists of the pauses of a stream, in seconds: those that ended before a second request was
    sent, and those that overlap with the prefill of the second request's long prompt.

    `pieces_at` are the times at which the stream's parts arrived. The second request was sent at
    `arrived_at`, and the first token of its answer came at `first_at`. If the stream's very last part came
    before `first_at`, the time from that part to `first_at` is a pause too.
    """
    gaps = list(pairwise(pieces_at))
    alone = [end - begin for begin, end in gaps if end <= arrived_at]
    during_prefill = [end - begin for begin, end in gaps if end > arrived_at and begin < first_at]
    if pieces_at and pieces_at[-1] < first_at:
        during_prefill.append(first_at - pieces_at[-1])
    return alone, during_prefill


SCENARIO = Scenario(
    "pace",
    "pauses between the parts of a text, alone and beside a prompt of 6,000 tokens",
    quick_s=65,
    full_s=1200,
    run=measure,
    full_rounds=2,
)

if __name__ == "__main__":
    run_alone(SCENARIO, sys.argv[1:])
