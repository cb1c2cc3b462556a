"""Measure the memory of engine and gateway over thousands of short requests.

    python -m benchmarks.gateway.steady_memory [REQUESTS]

Ten requests run at the same time: chats with shared beginnings, a few chats without, JSON and embeddings.
Answers have a few tokens, so 10,000 requests take about 20 minutes. The prompt cache is small, in RAM and on
disk, so that it is full early, and what grows afterwards is a leak.

Memory is measured after each tenth of the requests. The engine's memory counts as flat if the last value is
at most 5 % above the median of the second, third and fourth value. REQUESTS should be at least 2,000, which
is the default: with fewer requests, the cache is not full after the second tenth, and its growth looks like a
leak.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from typing import Any

import aiohttp
import psutil

from benchmarks.client.once import send
from benchmarks.client.requests import EMBEDDING_MODEL, FILLER, MODEL, SCHEMA, SUBJECTS, ClientRequest
from benchmarks.processes.gateway import GatewayProcess

SETTINGS = {"VESTAL_MLX__PROMPT_CACHE_RAM": "64m", "VESTAL_MLX__PROMPT_CACHE_DISK": "256m"}
"""Room for 1,400 tokens in RAM and 5,600 on disk: all beginnings fit on the disk, but replace each other in
RAM.
"""
BEGINNINGS = 24
CLIENTS = 10
SAMPLES = 10
TIMEOUT_S = 60.0
FLAT = 0.05
ROW = "{:>10} {:>8} {:>12} {:>12} {:>14} {:>14} {:>10}"
TITLES = ("requests", "s", "engine MB", "gateway MB", "cache RAM MB", "cache disk MB", "hits")
EMBED_EVERY, JSON_EVERY, ALONE_EVERY = 10, 25, 40


def ask(number: int) -> ClientRequest:
    """Return request `number`. Its length and type depend on the number alone."""
    draw = random.Random(number)
    subject = f"{number}: {draw.choice(SUBJECTS)}"
    if number % EMBED_EVERY == 0:
        texts = [subject] * draw.randint(1, 4)
        return ClientRequest(number, "", "/api/embed", {"model": EMBEDDING_MODEL, "input": texts})
    begun = number if number % ALONE_EVERY == 1 else number % BEGINNINGS
    rules = " ".join(FILLER.format(n=begun + n) for n in range(1 + begun % 4))
    options = {"temperature": draw.choice((0, 0.8)), "seed": number, "num_predict": draw.randint(1, 3)}
    body: dict[str, Any] = {"model": MODEL, "stream": bool(number % 2), "options": options}
    body["messages"] = [{"role": "system", "content": rules}, {"role": "user", "content": subject}]
    if number % JSON_EVERY == 5:
        body["format"] = SCHEMA
    return ClientRequest(number, "", "/api/chat", body)


async def measure(requests: int) -> bool:
    """Send `requests` requests to a new gateway with its engine, and print a line whenever another tenth of
    them has ended. Return True if the engine's memory stayed flat: its value at the end exceeds the median of
    its values after the second, third and fourth tenth by at most the fraction FLAT. Raises SystemExit if a
    request fails.
    """
    numbers = iter(range(requests))
    held: list[float] = []
    done = 0
    print(ROW.format(*TITLES))
    with GatewayProcess(**SETTINGS) as gateway:
        gateway.until_ok()
        first_pid, began = gateway.engine_pid(), time.monotonic()

        async def client(session: aiohttp.ClientSession) -> None:
            nonlocal done
            for number in numbers:
                answer = await send(session, gateway.url, ask(number), TIMEOUT_S)
                if answer.fault:
                    raise SystemExit(f"request {number}: {answer.fault}")
                done += 1
                if done * SAMPLES % requests < SAMPLES:
                    row = done  # `done` grows while this client waits below
                    cache = (await asyncio.to_thread(gateway.health))["prompt_cache"]
                    held.append(_rss_mb(gateway.engine_pid()))
                    _show(row, time.monotonic() - began, held[-1], _rss_mb(gateway.pid), cache)

        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(client(session) for _ in range(CLIENTS)))
        assert gateway.engine_pid() == first_pid, "the engine was replaced"
    grown = held[-1] / statistics.median(held[1:4]) - 1
    print(f"the last tenth holds {grown:+.1%} of what the third did")
    return grown <= FLAT


def _show(done: int, seconds: float, engine_mb: float, gateway_mb: float, cache: dict[str, int]) -> None:
    hits = cache["hits_ram"] + cache["hits_disk"]
    share = hits / max(hits + cache["misses"], 1)
    levels = (cache["ram_bytes"] / (1 << 20), cache["disk_bytes"] / (1 << 20))
    figures = [f"{value:.0f}" for value in (seconds, engine_mb, gateway_mb, *levels)]
    print(ROW.format(done, *figures, f"{share:.0%}"), flush=True)


def _rss_mb(pid: int | None) -> float:
    return psutil.Process(pid).memory_info().rss / (1 << 20) if pid else float("nan")


def main() -> None:
    sys.exit(not asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)))


if __name__ == "__main__":
    main()
