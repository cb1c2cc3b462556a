"""Run `make chaos`: `python -m benchmarks.chaos [--requests 100] [--kills 10] [--seed 1]`.

The exit code is 1 if a request was lost, a text came twice, or (on Linux, float32) fewer than 99 % were
equal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.chaos import load
from benchmarks.chaos.answers import Answer
from benchmarks.chaos.asks import ChaosRequest, make_asks
from benchmarks.chaos.killer import Death, Killer
from benchmarks.chaos.report import Report, report, table
from benchmarks.gateway_process import GatewayProcess

SETTINGS = {
    "VESTAL_SUPERVISION__MAX_RESTARTS": "10000",
    "VESTAL_SUPERVISION__BREAKER_FAILURES": "10000",
    "VESTAL_SUPERVISION__BACKOFF_BASE_S": "0.1",
    "VESTAL_SUPERVISION__BACKOFF_MAX_S": "0.2",
    "VESTAL_SUPERVISION__STOP_S": "2",
    "VESTAL_MLX__PROGRESS_TIMEOUT_S": "5",
}
"""The benchmark itself causes ten deaths in a minute, so the limits on restarts must not apply."""
REQUEST_TIMEOUT_S = 240.0
LEAST_EQUAL = 0.99 if sys.platform == "linux" else 0.0
"""Metal's arithmetic differs with the shape of a batch; float32 on a CPU hardly does."""


async def chaos(options: argparse.Namespace) -> Report:
    asks = make_asks(options.requests, options.seed)
    with GatewayProcess(**SETTINGS) as gateway:
        gateway.until_ok()
        print(f"{len(asks)} undisturbed requests, {options.clients} at once …", flush=True)
        began = time.monotonic()
        answers = await load.run(gateway.url, asks, options.clients, REQUEST_TIMEOUT_S)
        undisturbed_s = time.monotonic() - began
        wanted = {ask.number: answer for ask, answer in answers}
        _must_be_whole(answers)
        print(f"… {undisturbed_s:.0f} s. The same with {options.kills} kills …", flush=True)
        began = time.monotonic()
        got, killer = await _with_kills(gateway, asks, options, undisturbed_s)
        print(f"… {time.monotonic() - began:.0f} s.\n", flush=True)
        outcome = report(wanted, got, killer.deaths, killer.unreplaced)
        outcome.noticed_ms = noticed_ms(gateway, killer.deaths)
        if options.keep_log:
            options.keep_log.write_text(gateway.log())
        return outcome


async def _with_kills(
    gateway: GatewayProcess, asks: Sequence[ChaosRequest], options: argparse.Namespace, undisturbed_s: float
) -> tuple[list[tuple[ChaosRequest, Answer]], Killer]:
    """Run the load with kills spread over it; repeat the load until the last kill."""
    between_s = undisturbed_s / (options.kills + 1)
    killer = Killer(gateway, options.kills, options.seed, (0.1 * between_s, 1.5 * between_s))
    killing = asyncio.ensure_future(killer.run())
    got = await load.run(gateway.url, asks, options.clients, REQUEST_TIMEOUT_S, lambda: not killing.done())
    await killing
    return got, killer


def _must_be_whole(answers: Sequence[tuple[ChaosRequest, Answer]]) -> None:
    for ask, answer in answers:
        if answer.fault or not answer.finished:
            raise SystemExit(f"Request {ask.number} ({ask.kind}) failed without any kill: {answer.fault}")


def noticed_ms(gateway: GatewayProcess, deaths: Sequence[Death]) -> list[float]:
    """Return the milliseconds from each SIGKILL to the gateway's event that the engine is gone."""
    seen = {event["pid"]: event["ts"] for event in gateway.events("engine_link_closed")}
    return [(seen[d.pid] - d.wall) * 1000 for d in deaths if d.method == "KILL" and d.pid in seen]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--clients", type=int, default=6, help="requests at once")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--time-limit", type=float, default=1200.0, metavar="S")
    parser.add_argument("--least-equal", type=float, default=LEAST_EQUAL, metavar="SHARE")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, too")
    parser.add_argument("--keep-log", type=Path, metavar="FILE", help="copy the gateway's log to this file")
    options = parser.parse_args(arguments)
    print("settings of this run:", ", ".join(f"{k}={v}" for k, v in SETTINGS.items()))
    try:
        outcome = asyncio.run(asyncio.wait_for(chaos(options), options.time_limit))
    except TimeoutError as error:
        print(f"chaos: not done within {options.time_limit:g} s {error}", file=sys.stderr)
        return 1
    print(table(outcome))
    failures = outcome.fails(options.least_equal)
    for fault in outcome.faults[:10]:
        print(f"  {fault[:600]}")
    if options.json:
        print(json.dumps(_figures(outcome)))
    print("chaos: " + (", ".join(failures) or "nothing lost, nothing twice"))
    return 1 if failures else 0


def _figures(outcome: Report) -> dict[str, object]:
    every = [pause for pauses in outcome.pauses_s.values() for pause in pauses]
    return {
        "sent": outcome.sent,
        "finished": outcome.finished,
        **{str(verdict): count for verdict, count in outcome.verdicts.items()},
        "kills": dict(outcome.kills),
        "pause_p50_s": statistics.median(every) if every else None,
        "noticed_ms": outcome.noticed_ms,
    }


if __name__ == "__main__":
    sys.exit(main())
