"""Measure the agent at rest, a recovery pass over a healthy stack, and many callers of `POST /recover`.

    python -m benchmarks.recovery [CALLERS]

The stack is complete and native: gateway, engine with its models, orchestrator and nightly. By default 1,000
callers post at the same time.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from benchmarks.gateway_process import free_port, installed_models

UP_WITHIN_S = 120.0
REST_S = 30.0
PASSES = 5


@dataclass
class AgentProcess:
    """A running agent, its address and its token."""

    process: psutil.Process
    url: str
    headers: dict[str, str]


@contextmanager
def agent() -> Iterator[AgentProcess]:
    """Run an agent in its own home and on its own ports, and stop it gracefully."""
    with tempfile.TemporaryDirectory(prefix="vestal-bench-") as home:
        port = free_port()
        own = {
            "VESTAL_HOME": home,
            "VESTAL_MLX__STORE": str(installed_models()),
            "VESTAL_AGENT_PORT": str(port),
        }
        own |= {"VESTAL_MLX_PORT": str(free_port()), "VESTAL_ORCHESTRATOR_PORT": str(free_port())}
        own |= {"VESTAL_ORCHESTRATOR__MODE": "native", "VESTAL_OLLAMA__MANAGE": "off"}
        with (Path(home) / "agent.log").open("wb") as log:
            command = [sys.executable, "-m", "host_agent.cli.main", "agent"]
            popen = subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=log)
        try:
            token = Path(home) / "token"
            while not token.exists():
                time.sleep(0.05)
            headers = {"Authorization": f"Bearer {token.read_text().strip()}"}
            yield AgentProcess(psutil.Process(popen.pid), f"http://127.0.0.1:{port}", headers)
        finally:
            popen.terminate()
            popen.wait()


async def get(session: aiohttp.ClientSession, path: str) -> dict[str, Any]:
    async with session.get(path) as reply:
        found: dict[str, Any] = await reply.json()
        return found


async def until_healthy(session: aiohttp.ClientSession) -> None:
    until = time.monotonic() + UP_WITHIN_S
    while time.monotonic() < until:
        try:
            if (await get(session, "/status"))["healthy"]:
                return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.2)
    raise TimeoutError(f"not healthy within {UP_WITHIN_S:g} s")


async def one_pass_s(session: aiohttp.ClientSession) -> float:
    """Run one recovery pass. Return its seconds, from the times in its report."""
    async with session.post("/recover", json={}) as reply:
        run_id = (await reply.json())["run_id"]
    report: dict[str, Any] = {"state": "running"}
    while report["state"] != "done":
        report = await get(session, f"/recover/{run_id}")
        await asyncio.sleep(0.02)
    return float(report["finished_at"]) - float(report["started_at"])


async def callers_ms(session: aiohttp.ClientSession, count: int) -> tuple[list[float], set[str]]:
    """Call POST /recover `count` times at once. Return the sorted milliseconds, and the ids of the passes."""

    async def call() -> tuple[float, str]:
        began = time.perf_counter()
        async with session.post("/recover", json={"mlx": True}) as reply:
            answer = await reply.json()
        return (time.perf_counter() - began) * 1000, answer.get("run_id", f"refused: {reply.status}")

    answers = await asyncio.gather(*(call() for _ in range(count)))
    return sorted(ms for ms, _ in answers), {run for _, run in answers}


async def measure(it: AgentProcess, callers: int) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(it.url, headers=it.headers, connector=connector) as session:
        await until_healthy(session)
        before, rss = it.process.cpu_times(), it.process.memory_info().rss
        await asyncio.sleep(REST_S)
        after = it.process.cpu_times()
        share = (after.user + after.system - before.user - before.system) / REST_S
        print(f"at rest: {share:.2%} of a core, {rss / 2**20:.0f} MB")
        took = [await one_pass_s(session) for _ in range(PASSES)]
        print(f"a pass over a healthy stack: {statistics.median(took):.2f} s (longest {max(took):.2f})")
        waited, runs = await callers_ms(session, callers)
        p50, p99 = waited[len(waited) // 2], waited[int(len(waited) * 0.99)]
        print(f"{callers} callers at once: {len(runs)} pass(es), p50 {p50:.0f} ms, p99 {p99:.0f} ms")


def main() -> None:
    with agent() as it:
        asyncio.run(measure(it, int(sys.argv[1]) if len(sys.argv) > 1 else 1000))


if __name__ == "__main__":
    main()
