"""Measure the pause of a stream across `kill -9` of its engine, with a standby engine and without.

    python -m benchmarks.stream_pause [KILLS]

One stream of the small model runs at a time. The pause is the time from the kill to the next part of the
text, as the client sees it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import sys
import time

import aiohttp

from benchmarks.chaos.answers import Answer, send
from benchmarks.chaos.asks import MODEL, ChaosRequest
from benchmarks.chaos.pauses import Death, longest_gap
from benchmarks.gateway_process import GatewayProcess

SETTINGS = {"VESTAL_SUPERVISION__MAX_RESTARTS": "10000"}
PIECES_BEFORE = 12
SETTLED_S = 5.0
"""Long enough for the next standby engine to start."""
ROW = "{:<14} {:>8} {:>8} {:>8} {:>6}"


async def pause_s(gateway: GatewayProcess, session: aiohttp.ClientSession) -> float:
    """Start one stream, kill its engine, and return the pause in seconds."""
    messages = [{"role": "user", "content": "Write a long story about a lighthouse keeper."}]
    options = {"temperature": 0, "num_predict": 48}
    ask = ChaosRequest(
        0, "", "/api/chat", {"model": MODEL, "stream": True, "messages": messages, "options": options}
    )
    answer = Answer()
    sending = asyncio.ensure_future(send(session, gateway.url, ask, 60, answer))
    while len(answer.pieces_at) < PIECES_BEFORE and not sending.done():  # noqa: ASYNC110 - `send` fills the list
        await asyncio.sleep(0.005)
    pid = gateway.engine_pid()
    assert pid is not None, answer.fault
    at = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    await sending
    gap = longest_gap(answer.pieces_at, Death("KILL", at))
    assert gap is not None, answer.fault
    return gap[1] - gap[0]


async def measure(kills: int) -> dict[str, list[float]]:
    """Return the pauses in seconds. The gateways take turns, so that other load affects both."""
    took: dict[str, list[float]] = {"no standby": [], "standby": []}
    without = GatewayProcess(**SETTINGS, VESTAL_MLX__WARM_SPARE="false")
    with without, GatewayProcess(**SETTINGS, VESTAL_MLX__WARM_SPARE="true") as standby:
        without.until_ok()
        standby.until_ok()
        async with aiohttp.ClientSession() as session:
            for _ in range(kills):
                for name, gateway in zip(took, (without, standby), strict=True):
                    await asyncio.sleep(SETTLED_S)
                    took[name].append(await pause_s(gateway, session))
    return took


def main() -> None:
    took = asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 8))
    print(ROW.format("", "p50 s", "min s", "max s", "kills"))
    for name, seconds in took.items():
        figures = (f"{statistics.median(seconds):.2f}", f"{min(seconds):.2f}", f"{max(seconds):.2f}")
        print(ROW.format(name, *figures, len(seconds)))


if __name__ == "__main__":
    main()
