"""Measure the time to the first token of a long prompt: cold, repeated, and after `kill -9`.

    python -m benchmarks.warm_restart [ROUNDS]

The same is measured with mlx_lm.server. Two more figures: the time of a conversation of ten turns whose
engine is killed between all turns, against one without kills; and tokens a second with the prompt cache and
without.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import statistics
import sys
import time
from typing import Any

import aiohttp

from benchmarks.chaos.answers import Answer, send
from benchmarks.chaos.asks import FILLER, MODEL, ChaosRequest
from benchmarks.gateway_process import GatewayProcess, installed_models
from benchmarks.peer_process import PeerProcess
from benchmarks.throughput import PEER_MODEL, tokens_per_s

SETTINGS = {
    "VESTAL_SUPERVISION__MAX_RESTARTS": "10000",
    "VESTAL_SUPERVISION__BACKOFF_BASE_S": "0.1",
    "VESTAL_SUPERVISION__BACKOFF_MAX_S": "0.2",
}
NO_CACHE = {"VESTAL_MLX__PROMPT_CACHE_RAM": "0", "VESTAL_MLX__PROMPT_CACHE_DISK": "0"}
ITEMS = 58  # some 1,700 tokens
TURNS = 10
TIMEOUT_S = 120.0
WRITTEN_S = 2.0
"""The pause before a kill, as long as a user reads: the cache is written in the background."""
ROW = "{:<24} {:>12} {:>20}"
_numbers = itertools.count(1)


def _ask(model: str, messages: list[dict[str, str]], tokens: int) -> ChaosRequest:
    body: dict[str, Any] = {"model": model, "stream": True, "temperature": 0, "max_tokens": tokens}
    body |= {"messages": messages, "stream_options": {"include_usage": True}}
    return ChaosRequest(0, "", "/v1/chat/completions", body)


def _long_prompt() -> list[dict[str, str]]:
    """Return a prompt that was never sent before, because it begins with a new number."""
    items = "\n".join(FILLER.format(n=n) for n in range(1, ITEMS))
    return [{"role": "user", "content": f"List {next(_numbers)}:\n{items}\nWhat does the keeper note?"}]


async def first_token_s(session: aiohttp.ClientSession, url: str, ask: ChaosRequest) -> float:
    answer = Answer()
    began = time.monotonic()
    await send(session, url, ask, TIMEOUT_S, answer)
    if answer.fault or not answer.pieces_at:
        raise SystemExit(f"{url}: {answer.fault or 'no text'}")
    return answer.pieces_at[0] - began


async def _restart(gateway: GatewayProcess) -> None:
    """Kill the engine, and wait until another one serves."""
    await asyncio.sleep(WRITTEN_S)
    pid = gateway.engine_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while True:
        await asyncio.sleep(0.05)
        try:
            health = await asyncio.to_thread(gateway.health)
        except OSError:
            continue
        if health["status"] == "ok" and health["engine"]["pid"] not in (None, pid):
            break
    async with aiohttp.ClientSession() as session:  # the first request to any engine is slow
        await first_token_s(session, gateway.url, _ask(MODEL, [{"role": "user", "content": "Hello"}], 4))


async def long_prompts(
    gateway: GatewayProcess, folder: str, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the seconds to the first token of the gateway and of mlx_lm.server, which take turns."""
    ours: dict[str, list[float]] = {"cold": [], "again": [], "after kill -9": []}
    theirs: dict[str, list[float]] = {"cold": [], "again": [], "after kill -9": []}
    async with aiohttp.ClientSession() as session:
        for _ in range(rounds):
            with PeerProcess(installed_models() / folder) as peer:
                peer.until_ok()
                await tokens_per_s(session, peer.url, PEER_MODEL, 1)
                prompt = _long_prompt()
                for name in ("cold", "again"):
                    theirs[name].append(await first_token_s(session, peer.url, _ask(PEER_MODEL, prompt, 24)))
                    ours[name].append(await first_token_s(session, gateway.url, _ask(MODEL, prompt, 24)))
            with PeerProcess(
                installed_models() / folder
            ) as peer:  # the peer was killed; this is its next process
                peer.until_ok()
                await tokens_per_s(session, peer.url, PEER_MODEL, 1)
                asked = _ask(PEER_MODEL, prompt, 24)
                theirs["after kill -9"].append(await first_token_s(session, peer.url, asked))
            await _restart(gateway)
            ours["after kill -9"].append(await first_token_s(session, gateway.url, _ask(MODEL, prompt, 24)))
    return ours, theirs


async def conversation_s(gateway: GatewayProcess, restarts: bool) -> float:
    """Return the seconds that the answers of ten turns take, without the restarts themselves."""
    messages: list[dict[str, str]] = [{"role": "system", "content": f"Talk {next(_numbers)}."}]
    took = 0.0
    async with aiohttp.ClientSession() as session:
        for turn in range(TURNS):
            if turn and restarts:
                await _restart(gateway)
            text = " ".join(FILLER.format(n=turn * 3 + n) for n in range(3))
            messages.append({"role": "user", "content": f"{text} And then?"})
            answer = Answer()
            began = time.monotonic()
            await send(session, gateway.url, _ask(MODEL, messages, 32), TIMEOUT_S, answer)
            took += time.monotonic() - began
            if answer.fault:
                raise SystemExit(answer.fault)
            messages.append({"role": "assistant", "content": answer.text})
    return took


async def cost(gateway: GatewayProcess, rounds: int) -> float:
    """Return tokens a second at four streams with the cache, divided by those without; both take turns."""
    with GatewayProcess(**SETTINGS, **NO_CACHE) as bare:
        bare.until_ok()
        async with aiohttp.ClientSession() as session:
            for url in (gateway.url, bare.url):
                await tokens_per_s(session, url, MODEL, 1)
            ratios = []
            for number in range(rounds):
                pair = {gateway.url: 0.0, bare.url: 0.0}
                for url in sorted(pair, reverse=bool(number % 2)):  # each is first equally often
                    pair[url] = await tokens_per_s(session, url, MODEL, 4)
                ratios.append(pair[gateway.url] / pair[bare.url])
    return statistics.geometric_mean(ratios)


async def measure(rounds: int) -> None:
    with GatewayProcess(**SETTINGS) as gateway:
        gateway.until_ok()
        async with aiohttp.ClientSession() as session:
            await tokens_per_s(session, gateway.url, MODEL, 1)
        ours, theirs = await long_prompts(gateway, MODEL.replace(":", "__"), rounds)
        print(ROW.format("1,700 tokens, first after", "vestal s", "mlx_lm.server s"))
        for name in ours:
            figures = (statistics.median(ours[name]), statistics.median(theirs[name]))
            print(ROW.format(name, *(f"{seconds:.2f}" for seconds in figures)))
        cold = statistics.median(ours["cold"])
        print(f"after a kill: {cold / statistics.median(ours['after kill -9']):.0f} times faster than cold")
        undisturbed, restarts = await conversation_s(gateway, False), await conversation_s(gateway, True)
        ratio = restarts / undisturbed
        print(f"ten turns: {undisturbed:.1f} s without kills, {restarts:.1f} s with nine kills ({ratio:.2f})")
        print(f"throughput with the cache ÷ without: {await cost(gateway, 2 * rounds + 2):.3f}")


def main() -> None:
    asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 3))


if __name__ == "__main__":
    main()
