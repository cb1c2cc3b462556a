"""Measure tokens a second against mlx_lm.server, the gateway's share of latency, and memory.

    python -m benchmarks.throughput [ROUNDS]

Both servers have the same model, BLAS and threads, and take turns. Every prompt is new; the requests are
greedy chat completions, streamed.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import sys
import time
from collections.abc import Sequence

import aiohttp
import psutil

from benchmarks.chaos.answers import Answer, send
from benchmarks.chaos.asks import MODEL, SUBJECTS, ChaosRequest
from benchmarks.gateway_process import GatewayProcess, installed_models
from benchmarks.peer_process import PeerProcess

STREAMS = (1, 4, 8)
TOKENS = 64
TIMEOUT_S = 120.0
PEER_MODEL = "default_model"
ROW = "{:>8} {:>14} {:>20} {:>8}"
_numbers = itertools.count(1)


def _ask(model: str) -> ChaosRequest:
    number = next(_numbers)
    text = f"{number}. Write a long story about {SUBJECTS[number % len(SUBJECTS)]}."
    body = {"model": model, "stream": True, "temperature": 0, "max_tokens": TOKENS}
    body |= {"messages": [{"role": "user", "content": text}], "stream_options": {"include_usage": True}}
    return ChaosRequest(number, "", "/v1/chat/completions", body)


async def tokens_per_s(session: aiohttp.ClientSession, url: str, model: str, streams: int) -> float:
    """Return the tokens a second of `streams` simultaneous requests, from first byte sent to last read."""
    began = time.perf_counter()
    sent = [send(session, url, _ask(model), TIMEOUT_S) for _ in range(streams)]
    answers: Sequence[Answer] = await asyncio.gather(*sent)
    took = time.perf_counter() - began
    faults = [answer.fault for answer in answers if answer.fault or not answer.tokens]
    if faults:
        raise SystemExit(f"{url}: {faults[0] or 'no tokens counted'}")
    return sum(answer.tokens for answer in answers) / took


async def gateway_share(session: aiohttp.ClientSession, url: str) -> float:
    """Return the share of a request's time that the engine did not spend on its prompt and answer."""
    body = {"model": MODEL, "stream": False, "messages": [{"role": "user", "content": f"{next(_numbers)}!"}]}
    body["options"] = {"temperature": 0, "num_predict": TOKENS}
    began = time.perf_counter()
    async with session.post(f"{url}/api/chat", json=body) as response:
        answer = await response.json()
    took = time.perf_counter() - began
    return 1 - (answer["prompt_eval_duration"] + answer["eval_duration"]) / 1e9 / took


async def measure(rounds: int) -> None:
    folder = installed_models() / MODEL.replace(":", "__")
    ours: dict[int, list[float]] = {streams: [] for streams in STREAMS}
    theirs: dict[int, list[float]] = {streams: [] for streams in STREAMS}
    with GatewayProcess(VESTAL_MLX__MAX_RUNNING="8") as gateway, PeerProcess(folder) as peer:
        gateway.until_ok()
        peer.until_ok()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session:
            for url, model in ((gateway.url, MODEL), (peer.url, PEER_MODEL)):
                await tokens_per_s(
                    session, url, model, 1
                )  # the first request loads the model and compiles kernels
            for streams in STREAMS * rounds:
                ours[streams].append(await tokens_per_s(session, gateway.url, MODEL, streams))
                theirs[streams].append(await tokens_per_s(session, peer.url, PEER_MODEL, streams))
            share = statistics.median([await gateway_share(session, gateway.url) for _ in range(5)])
        memory = [_rss_mb(pid) for pid in (gateway.pid, gateway.engine_pid(), peer.pid)]
    print(ROW.format("streams", "vestal tok/s", "mlx_lm.server tok/s", "ratio"))
    for streams in STREAMS:
        one, other = statistics.median(ours[streams]), statistics.median(theirs[streams])
        ratio = statistics.median(a / b for a, b in zip(ours[streams], theirs[streams], strict=True))
        print(ROW.format(streams, f"{one:.1f}", f"{other:.1f}", f"{ratio:.2f}"))
    print(f"gateway's share of a request's latency: {share:.1%}")
    print("memory: gateway {:.0f} MB, engine {:.0f} MB, mlx_lm.server {:.0f} MB".format(*memory))


def _rss_mb(pid: int | None) -> float:
    return psutil.Process(pid).memory_info().rss / (1 << 20) if pid else float("nan")


def main() -> None:
    asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5))


if __name__ == "__main__":
    main()
