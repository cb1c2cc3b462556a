"""What engine and gateway hold in the course of thousands of short requests: a day of work in small.

    python -m benchmarks.steady_memory [REQUESTS]

Prompts of many beginnings, chats, JSON and vectors, ten at once. The prompt cache's share of RAM is small, so
that it is full early: what grows after that is a leak. Flat is: the last tenth within 5 % of the third.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
from typing import Any

import aiohttp
import psutil

from benchmarks.chaos.answers import send
from benchmarks.chaos.asks import EMBEDDING_MODEL, FILLER, MODEL, SCHEMA, SUBJECTS, Ask
from benchmarks.gateway_process import GatewayProcess

SETTINGS = {"VESTAL_MLX__PROMPT_CACHE_RAM": "64m", "VESTAL_MLX__PROMPT_CACHE_DISK": "128m"}
CLIENTS = 10
SAMPLES = 10
TIMEOUT_S = 60.0
FLAT = 0.05
ROW = "{:>10} {:>12} {:>12}"


def ask(number: int) -> Ask:
    """Its length and kind depend on its number alone."""
    draw = random.Random(number)
    subject = f"{number % 97}. {draw.choice(SUBJECTS)}"
    if number % 10 == 0:
        return Ask(
            number, "", "/api/embed", {"model": EMBEDDING_MODEL, "input": [subject] * draw.randint(1, 8)}
        )
    text = " ".join(FILLER.format(n=n) for n in range(draw.choice((0, 0, 1, 4))))
    options = {"temperature": draw.choice((0, 0.8)), "seed": number, "num_predict": draw.randint(1, 4)}
    body: dict[str, Any] = {"model": MODEL, "stream": bool(number % 2), "options": options}
    body["messages"] = [{"role": "user", "content": f"{subject} {text}"}]
    if number % 10 == 5:
        body["format"] = SCHEMA
    return Ask(number, "", "/api/chat", body)


async def measure(requests: int) -> bool:
    """Prints a line a tenth; whether the engine's memory was flat."""
    numbers = iter(range(requests))
    held: list[float] = []
    done = 0
    print(ROW.format("requests", "engine MB", "gateway MB"))
    with GatewayProcess(**SETTINGS) as gateway:
        gateway.until_ok()
        first_pid = gateway.engine_pid()

        async def client(session: aiohttp.ClientSession) -> None:
            nonlocal done
            for number in numbers:
                answer = await send(session, gateway.url, ask(number), TIMEOUT_S)
                if answer.fault:
                    raise SystemExit(f"request {number}: {answer.fault}")
                done += 1
                if done * SAMPLES % requests < SAMPLES:
                    held.append(_rss_mb(gateway.engine_pid()))
                    print(ROW.format(done, f"{held[-1]:.0f}", f"{_rss_mb(gateway.pid):.0f}"), flush=True)

        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(client(session) for _ in range(CLIENTS)))
        assert gateway.engine_pid() == first_pid, "the engine was replaced"
    grown = held[-1] / statistics.median(held[1:4]) - 1
    print(f"the last tenth holds {grown:+.1%} of what the third did")
    return grown <= FLAT


def _rss_mb(pid: int | None) -> float:
    return psutil.Process(pid).memory_info().rss / (1 << 20) if pid else float("nan")


def main() -> None:
    sys.exit(not asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)))


if __name__ == "__main__":
    main()
