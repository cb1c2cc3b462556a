"""Measure tokens per second at 1, 4, 8 and 16 streams, memory, and the gateway's share of the latency.

    python -m benchmarks.serving.throughput [ROUNDS [SUBJECT …]]

SUBJECT is `vestal` or the name of a server that it is compared with; by default, all take part. All have the
same weights and take turns. No prompt is sent twice to a server; the requests are greedy, streamed chat
completions. The time is from the first byte sent to the last received.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from collections.abc import Sequence
from functools import partial

from benchmarks.client.requests import MODEL
from benchmarks.figures import Better
from benchmarks.scenario import Log, Scenario, Subjects, run_alone
from benchmarks.serving.asking import Messages, request, story, tokens_per_s, warm_up
from benchmarks.serving.contest import Contest
from benchmarks.serving.servers import Server, Vestal, memory_mb
from benchmarks.serving.starting import running
from benchmarks.serving.streaming import TIMEOUT_S

STREAMS = {1: 48, 4: 32, 8: 32, 16: 24}
"""Maps the number of streams to how many tokens each of them has."""
SPEED, MEMORY, SHARE = "serving/tokens_per_s/{}", "serving/memory_mb", "serving/gateway_share_of_latency"
UNITS: dict[str, tuple[str, Better]] = {SPEED.format(streams): ("tok/s", "higher") for streams in STREAMS}
UNITS |= {MEMORY: ("MB", "lower"), SHARE: ("%", "lower")}


def measure(log: Log, subjects: Subjects, rounds: int) -> None:
    with running(log, subjects, [row for row in UNITS if row != SHARE]) as servers:
        contest = Contest(log, servers)
        contest.warm_up(warm_up)
        for number in range(1, rounds + 1):
            for streams, tokens in STREAMS.items():
                row = SPEED.format(streams)
                prompts = [story() for _ in range(streams)]
                contest.turn(number, {row: UNITS[row]}, partial(_speed, row, prompts, tokens))
            contest.turn(number, {MEMORY: UNITS[MEMORY]}, lambda server: {MEMORY: memory_mb(server)})
            contest.turn(
                number,
                {SHARE: UNITS[SHARE]},
                lambda server: {SHARE: 100 * gateway_share(server)},
                lambda server: isinstance(server, Vestal),
            )


def _speed(row: str, prompts: Sequence[Messages], tokens: int, server: Server) -> dict[str, float]:
    return {row: tokens_per_s(server, [request(server, messages, tokens) for messages in prompts])}


def gateway_share(server: Server) -> float:
    """Send one request to Vestal, and return the share of the request's time, from 0 to 1, that the engine
    did not spend on the prompt and the answer. Raises OSError if the request fails.
    """
    body = {"model": MODEL, "stream": False, "messages": story()}
    body["options"] = {"temperature": 0, "num_predict": STREAMS[1]}
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(f"{server.url}/api/chat", json.dumps(body).encode(), headers)
    began = time.perf_counter()
    with urllib.request.urlopen(asked, timeout=TIMEOUT_S) as reply:
        answer = json.load(reply)
    took = time.perf_counter() - began
    return float(1 - (answer["prompt_eval_duration"] + answer["eval_duration"]) / 1e9 / took)


SCENARIO = Scenario(
    "throughput",
    "tokens a second at 1, 4, 8 and 16 streams, memory, and the gateway's share of a request",
    quick_s=120,
    full_s=1200,
    run=measure,
    full_rounds=3,
)

if __name__ == "__main__":
    run_alone(SCENARIO, sys.argv[1:])
