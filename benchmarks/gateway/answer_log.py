"""Measure how the answer log affects tokens per second, and the gateway's CPU time for each token.

The answer log is the file from which the next gateway continues an answer after the death of this one.

    python -m benchmarks.gateway.answer_log [ROUNDS]

Two gateways, with `mlx.keep_answers_s` 0 (no answer log) and 3600, take turns with 8 streams in each of
ROUNDS rounds (10 by default). Which one begins alternates, so that other load of the machine affects both.
This is done first with a stand-in engine, which makes up tokens without a model, so that the gateway limits
the speed, and then with the real engine and the model smollm2:135m.

In the table that is printed, `ratio` is the speed with the log divided by the speed without it: the median
over the rounds. `fastest` is the same for the fastest round of each gateway, which other load affects least.
The CPU time does not include what the gateway uses at rest.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil

from benchmarks.client.requests import MODEL
from benchmarks.processes.gateway import GatewayProcess

FAKE_ENGINE = Path(__file__).resolve().parents[2] / "tests" / "children" / "gateway_with_fake_engine.py"
STREAMS = 8
KEPT, NOT_KEPT = "3600", "0"
REST_S = 5.0
ROW = "{:<20} {:>12} {:>12} {:>7} {:>8} {:>17} {:>14}"
_numbers = itertools.count(1)


@dataclass
class Figures:
    """What was measured of one gateway: for each round, the tokens per second and the gateway's CPU seconds
    per token.

    `at_rest` is the share of a core that the gateway uses without requests.
    """

    at_rest: float = 0.0
    tokens_per_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)


async def round_of(
    session: aiohttp.ClientSession, gateway: GatewayProcess, prompt: str, tokens: int, figures: Figures
) -> None:
    """Send STREAMS requests with `prompt` at the same time, each for an answer of `tokens` tokens, and read
    the answers to their end. Add the tokens per second of all answers together, and the gateway's CPU seconds
    per token, to `figures`. Raises SystemExit if a request fails.
    """
    process = psutil.Process(gateway.pid)

    async def stream() -> None:
        text = f"{next(_numbers)}. {prompt}"
        body = {"model": MODEL, "stream": True, "temperature": 0, "max_tokens": tokens}
        body |= {"messages": [{"role": "user", "content": text}]}
        async with session.post(f"{gateway.url}/v1/chat/completions", json=body) as response:
            end = b""
            async for data in response.content.iter_any():
                end = (end + data)[-1000:]
        if response.status != 200 or b"[DONE]" not in end:
            raise SystemExit(f"{response.status}: {end.decode(errors='replace')[:300]}")

    before, began = _cpu_s(process), time.perf_counter()
    await asyncio.gather(*(stream() for _ in range(STREAMS)))
    took = time.perf_counter() - began
    figures.tokens_per_s.append(STREAMS * tokens / took)
    figures.cpu_s.append((_cpu_s(process) - before - figures.at_rest * took) / (STREAMS * tokens))


async def compare(program: tuple[str, ...], prompt: str, tokens: int, rounds: int) -> dict[str, Figures]:
    """Measure a gateway without an answer log and one with it, in turns. Return their figures by the value of
    `mlx.keep_answers_s`: NOT_KEPT or KEPT.

    `program` has the arguments with which the Python interpreter starts each gateway. If it is empty, the
    usual gateway is started, with its real engine.
    """
    figures = {NOT_KEPT: Figures(), KEPT: Figures()}
    settings = {"VESTAL_MLX__MAX_RUNNING": str(STREAMS), "VESTAL_MLX__WARM_SPARE": "false"}
    without = GatewayProcess(*program, **settings, VESTAL_MLX__KEEP_ANSWERS_S=NOT_KEPT)
    with_log = GatewayProcess(*program, **settings, VESTAL_MLX__KEEP_ANSWERS_S=KEPT)
    with without, with_log:
        gateways = {NOT_KEPT: without, KEPT: with_log}
        for gateway in gateways.values():
            gateway.until_ok()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
            for gateway in gateways.values():
                await round_of(session, gateway, prompt, tokens, Figures())  # loads the model
            for name, gateway in gateways.items():
                figures[name].at_rest = await _share_at_rest(psutil.Process(gateway.pid))
            for number in range(rounds):
                for name in (NOT_KEPT, KEPT) if number % 2 else (KEPT, NOT_KEPT):
                    await round_of(session, gateways[name], prompt, tokens, figures[name])
    return figures


async def _share_at_rest(process: psutil.Process) -> float:
    before = _cpu_s(process)
    await asyncio.sleep(REST_S)
    return (_cpu_s(process) - before) / REST_S


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _print(name: str, figures: dict[str, Figures]) -> None:
    without, kept = figures[NOT_KEPT], figures[KEPT]
    ratio = statistics.median(a / b for a, b in zip(kept.tokens_per_s, without.tokens_per_s, strict=True))
    fastest = max(kept.tokens_per_s) / max(without.tokens_per_s)
    speeds = (f"{statistics.median(each.tokens_per_s):.0f} tok/s" for each in (without, kept))
    cpu = (f"{statistics.median(each.cpu_s) * 1e6:.0f} µs" for each in (without, kept))
    print(ROW.format(name, *speeds, f"{ratio:.3f}", f"{fastest:.3f}", *cpu), flush=True)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    print(
        ROW.format("", "without log", "with log", "ratio", "fastest", "CPU/token without", "CPU/token with")
    )
    fast = asyncio.run(compare((str(FAKE_ENGINE),), "tokens=2000 step_ms=0", 2000, rounds))
    _print("engine without model", fast)
    _print(MODEL, asyncio.run(compare((), "Write a long story about a lighthouse keeper.", 24, rounds)))


if __name__ == "__main__":
    main()
