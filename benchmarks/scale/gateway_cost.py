"""Measure how much CPU time of a gateway each token, each peer and each placement of a request takes.

    python -m benchmarks.scale.gateway_cost [ROUNDS]

The measured gateway runs with a fake engine, which makes up tokens without a model. The gateway streams these
tokens, and answers /health requests that this benchmark sends in place of peers. The CPU time that a gateway
takes to send a /health request, or to choose a machine for a request, is measured in this process, with the
classes that gateways use. ROUNDS is how often the streams are measured (3 by default). The figures are copied
into parameters.yaml by hand.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

import psutil

from benchmarks.gateway.answer_log import FAKE_ENGINE, KEPT, STREAMS, compare
from benchmarks.processes.gateway import GatewayProcess
from mlx_server.gateway.peers.conversation import Asked, PrefixMemory
from mlx_server.gateway.peers.machine_choice import HERE, Machine, machine_for
from mlx_server.gateway.peers.peer import Peer
from mlx_server.gateway.peers.polling import PeerState

ASKED = 500
PACES = ((0, 2000), (20, 250))
PARTS = 40
PEERS = (1, 9, 99)
CHOICES = 300


async def health_cpu_s() -> tuple[float, float]:
    """Send /health requests from this process to a gateway, with the class `Peer`, with which gateways ask
    each other. Return the CPU seconds that one request takes in the gateway, which answers, and in this
    process, which asks. Raises SystemExit if a request is not answered.
    """
    with GatewayProcess(str(FAKE_ENGINE), VESTAL_MLX__WARM_SPARE="false") as gateway:
        gateway.until_ok()
        peer, process = Peer(gateway.url, "key"), psutil.Process(gateway.pid)
        await peer.health()
        before, own_before, began = process.cpu_times(), time.process_time(), time.perf_counter()
        for _ in range(ASKED):
            if await peer.health() is None:
                raise SystemExit("The gateway did not answer.")
        after, own, took_s = (
            process.cpu_times(),
            time.process_time() - own_before,
            time.perf_counter() - began,
        )
        await peer.close()
        rest_before = process.cpu_times()
        await asyncio.sleep(took_s)
        rest = process.cpu_times()
    spent = after.user + after.system - before.user - before.system
    at_rest = rest.user + rest.system - rest_before.user - rest_before.system
    return (spent - at_rest) / ASKED, own / ASKED


def choice_cpu_s(peers: int) -> float:
    """Return the CPU seconds that a gateway with `peers` peers takes to place one request."""
    health = {"status": "ok", "requests": {"running": 2, "queued": 0, "parked": 0, "slots": 5}}
    states = {f"http://mac-{number}:11435": PeerState(0.0) for number in range(peers)}
    for state in states.values():
        state.heard(health, 1.0)
    memory = PrefixMemory()
    for number in range(1000):
        memory.note(_asked(number), HERE if number % 2 else next(iter(states)))
    began = time.process_time()
    for number in range(CHOICES):
        asked = _asked(number)
        known = memory.prefix_bytes(asked, (HERE, *states))
        machine_for(
            Machine(HERE, True, 5, 1, 5, known[HERE]),
            [one.machine(url, known[url]) for url, one in states.items()],
        )
        memory.note(asked, HERE)
    return (time.process_time() - began) / CHOICES


def _asked(number: int) -> Asked:
    return Asked(
        "model", "", tuple((f"{number}.{part}".encode(), 1000 * (part + 1)) for part in range(PARTS))
    )


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    answered, asked = asyncio.run(health_cpu_s())
    print(f"/health: {answered * 1e3:.2f} ms of CPU to answer, {asked * 1e3:.2f} ms to ask", flush=True)
    for peers in PEERS:
        print(f"a placement among {peers + 1} machines: {choice_cpu_s(peers) * 1e3:.2f} ms", flush=True)
    for step_ms, tokens in PACES:
        paced = f"tokens={tokens} step_ms={step_ms}"
        figures = asyncio.run(compare((str(FAKE_ENGINE),), paced, tokens, rounds))
        cpu_s = statistics.median(figures[KEPT].cpu_s)
        print(f"a streamed token, {STREAMS} streams, {step_ms} ms a step: {cpu_s * 1e6:.0f} µs", flush=True)


if __name__ == "__main__":
    main()
