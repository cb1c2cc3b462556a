"""Measure how many texts are embedded per second, in batches of 64 short texts, and the pace of an answer
that runs meanwhile.

    python -m benchmarks.serving.embeddings [ROUNDS]
    BENCH_OTHER=FOLDER python -m benchmarks.serving.embeddings [ROUNDS]

FOLDER is a checkout of another version, which takes turns with this one. Both have the built-in embedding
model. CPU time counts gateway and engine together.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
import urllib.request

import aiohttp
import psutil

from benchmarks.figures import Better
from benchmarks.scenario import Log, Scenario, Subjects, run_alone
from benchmarks.serving.asking import request, running_answer, story, warm_up
from benchmarks.serving.servers import Server
from benchmarks.serving.starting import measure_in_rounds

MODEL = "all-minilm"
TEXTS, BATCHES = 64, 3
ALONE_PARTS, MOST_TOKENS = 60, 1_500
BESIDE_S = 3.0
WORDS = (
    "engine",
    "request",
    "memory",
    "model",
    "cache",
    "answer",
    "number",
    "paper",
    "river",
    "stone",
    "music",
)
SHORTEST_WORDS, LONGEST_WORDS = 4, 20
TIMEOUT_S = 120.0
SPEED, CPU = "serving/embeddings_per_s", "serving/embeddings_cpu_ms_a_text"
ANSWER = "serving/answer_beside_embeddings/{}"
ALONE, BESIDE, TEXTS_BESIDE = map(ANSWER.format, ("tokens_per_s_alone", "tokens_per_s", "texts_per_s"))
UNITS: dict[str, tuple[str, Better]] = {
    SPEED: ("texts/s", "higher"),
    CPU: ("ms", "lower"),
    ALONE: ("tok/s", "higher"),
    BESIDE: ("tok/s", "higher"),
    TEXTS_BESIDE: ("texts/s", "higher"),
}


def measure(log: Log, subjects: Subjects, rounds: int) -> None:
    measure_in_rounds(log, subjects, rounds, UNITS, load_models, speeds, peers=())


def load_models(server: Server) -> None:
    """Have the server load the embedding model and the language model."""
    warm_up(server)
    embed(server, 0)


def speeds(server: Server, number: int) -> dict[str, float]:
    """Return all figures of round `number`, by name."""
    return batches(server, number) | asyncio.run(answer_beside(server, number))


async def answer_beside(server: Server, number: int) -> dict[str, float]:
    """Measure the pace of an answer, first alone, then for BESIDE_S seconds while a client has batches of
    texts embedded, one after the other. Return the tokens per second of both times, and the texts per second.
    """
    seed = 1_000_000 * (number + 1)
    async with aiohttp.ClientSession() as session:
        body = request(server, story(), MOST_TOKENS)
        async with running_answer(session, server, body, ALONE_PARTS) as answer:
            began, count = time.monotonic(), 0
            while time.monotonic() < began + BESIDE_S:
                await asyncio.to_thread(embed, server, seed + count)
                count += 1
            ended = time.monotonic()
    first = answer.pieces_at[0]
    alone = sum(first < at <= began for at in answer.pieces_at) / (began - first)
    beside = sum(began < at <= ended for at in answer.pieces_at) / (ended - began)
    return {ALONE: alone, BESIDE: beside, TEXTS_BESIDE: TEXTS * count / (ended - began)}


def batches(server: Server, number: int) -> dict[str, float]:
    """Have the server embed BATCHES batches of texts. `number` is the number of the round, and each round has
    other texts. Return the texts per second and the CPU milliseconds per text, by the name of the figure.
    """
    before, began = _cpu_s(server), time.perf_counter()
    for batch in range(BATCHES):
        embed(server, number * BATCHES + batch)
    took, used = time.perf_counter() - began, _cpu_s(server) - before
    return {SPEED: TEXTS * BATCHES / took, CPU: used / (TEXTS * BATCHES) * 1e3}


def embed(server: Server, seed: int) -> None:
    """Let the server embed one batch of TEXTS random texts, which depend only on `seed`. Raises RuntimeError
    if the server does not return one vector for each text.
    """
    body = json.dumps({"model": MODEL, "input": short_texts(seed)}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.url}/v1/embeddings", body, headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        vectors = json.load(answer)["data"]
    if len(vectors) != TEXTS:
        raise RuntimeError(f"There are {len(vectors)} vectors for {TEXTS} texts.")


def short_texts(seed: int) -> list[str]:
    """Return TEXTS random texts of 4 to 20 words, as long as titles and sentences."""
    drawn = random.Random(seed)
    lengths = [drawn.randint(SHORTEST_WORDS, LONGEST_WORDS) for _ in range(TEXTS)]
    return [" ".join(drawn.choices(WORDS, k=length)) for length in lengths]


def _cpu_s(server: Server) -> float:
    process = psutil.Process(server.pid)
    return sum(sum(each.cpu_times()[:2]) for each in (process, *process.children(recursive=True)))


SCENARIO = Scenario(
    "embeddings",
    "texts a second in batches of 64, and the pace of an answer beside them",
    quick_s=35,
    full_s=180,
    run=measure,
    quick_rounds=3,
    full_rounds=10,
)

if __name__ == "__main__":
    run_alone(SCENARIO, sys.argv[1:])
