"""Measure the agent at rest, a recovery pass over a healthy stack, and many callers of `/recover` at the same
time.

    python -m benchmarks.agent.recovery [ROUNDS]

The stack is complete and runs without containers: gateway, engine with its models, orchestrator, and the
service `nightly`, which indexes the agents' knowledge folders at night and is otherwise idle. The callers are
connections of a separate process. It sends all requests before it reads an answer, so that the agent is
measured and not a slow client.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import aiohttp

from benchmarks.figures import VESTAL, Better, Figure, percentile
from benchmarks.processes.agent import AgentProcess, agent, get, until_healthy
from benchmarks.scenario import Log, Scenario, Subjects, progress, run_alone

REST_S = 10.0
CALLERS = 1000
CALLED_WITHIN_S = 60.0
MIB = 1 << 20


async def one_pass_s(session: aiohttp.ClientSession) -> float:
    """Run one recovery pass, and return its duration in seconds, from the times in its report."""
    async with session.post("/recover", json={}) as reply:
        run_id = (await reply.json())["run_id"]
    report: dict[str, Any] = {"state": "running"}
    while report["state"] != "done":
        report = await get(session, f"/recover/{run_id}")
        await asyncio.sleep(0.02)
    return float(report["finished_at"]) - float(report["started_at"])


def callers(it: AgentProcess) -> tuple[list[float], set[str]]:
    """Call POST /recover CALLERS times at once, from another process.

    Return the milliseconds from each connection's start to its answer, and the ids of the recovery passes,
    without duplicates, because several calls may share a pass. Raises subprocess.SubprocessError if the
    process fails or takes too long, and ValueError if its output or an answer is not JSON.
    """
    command = [sys.executable, "-m", "benchmarks.agent.callers", str(it.port), str(CALLERS)]
    done = subprocess.run(
        command, input=it.token, capture_output=True, text=True, timeout=CALLED_WITHIN_S, check=True
    )
    answers = json.loads(done.stdout)
    return [ms for ms, _ in answers], {json.loads(body).get("run_id", body) for _, body in answers}


async def measure_round(it: AgentProcess, number: int, log: Log) -> None:
    """Measure the agent at rest, one recovery pass, and CALLERS simultaneous calls of /recover, and log the
    figures with `number` as the round. Raises TimeoutError if the stack is not healthy in time.
    """

    def figure(name: str, value: float, unit: str, better: Better = "lower") -> None:
        log(Figure(f"recovery/{name}", VESTAL, round(value, 3), unit, better, number))

    async with aiohttp.ClientSession(it.url, headers=it.headers) as session:
        await until_healthy(session)
        before = it.process.cpu_times()
        await asyncio.sleep(REST_S)
        after = it.process.cpu_times()
        share = (after.user + after.system - before.user - before.system) / REST_S
        figure("agent_at_rest", 100 * share, "% of a core")
        figure("agent_memory", it.process.memory_info().rss / MIB, "MB")
        figure("pass_s", await one_pass_s(session), "s")
    before = it.process.cpu_times()
    waited, passes = await asyncio.to_thread(callers, it)
    after = it.process.cpu_times()
    used_s = after.user + after.system - before.user - before.system
    figure(f"{CALLERS}_callers/p50", percentile(waited, 0.5), "ms")
    figure(f"{CALLERS}_callers/p99", percentile(waited, 0.99), "ms")
    figure(f"{CALLERS}_callers/cpu", 1000 * used_s, "ms")
    figure(f"{CALLERS}_callers/passes", len(passes), "passes")


def _run(log: Log, subjects: Subjects, rounds: int) -> None:
    if not subjects.wants(VESTAL):
        return
    with agent() as it:
        for number in range(1, rounds + 1):
            progress(f"recovery: round {number}")
            asyncio.run(measure_round(it, number, log))


SCENARIO = Scenario(
    name="recovery",
    about="the agent at rest, a recovery pass, and a thousand callers of /recover at once",
    quick_s=0,  # not in a quick run, whose time is for the comparisons with peers
    full_s=600.0,
    run=_run,
    full_rounds=10,
)

if __name__ == "__main__":
    run_alone(SCENARIO, sys.argv[1:])
