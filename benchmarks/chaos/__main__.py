"""Run `make chaos`: `python -m benchmarks.chaos [--requests 100] [--kills 10] [--kill engine,gateway]`.

The exit code is 1 if a part of an answer was lost or came twice, a kill or an upgrade had no effect, or (on
Linux, float32) fewer than 99.9 % of the answers were equal to the undisturbed ones; it is 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.chaos import disturbances, state
from benchmarks.chaos.soak import Options, Soak
from benchmarks.chaos.table import markdown

LEAST_EQUAL = 0.999 if sys.platform == "linux" else 0.0
"""The least share of answers that must equal the undisturbed ones. On Metal it is 0, because the results of
its arithmetic depend on the shape of a batch; those of float32 on a CPU hardly do.
"""
INTERRUPTED_EXIT_CODE = 130


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    soak = Soak(options)
    try:
        asyncio.run(_until_done_or_terminated(soak))
        ended = ""
    except (KeyboardInterrupt, asyncio.CancelledError):
        ended = "interrupted"
    except state.StateError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2
    tally = soak.state.tally
    result = markdown("Requests, while what serves them dies", soak.facts(), tally)
    print(f"\n{result}")
    if options.result and not ended:
        options.result.write_text(result)
    if options.json:
        print(json.dumps(tally.to_json()))
    if ended:
        go_on = f"the same command goes on from {options.state}" if options.state else "nothing was kept"
        print(f"chaos: {ended} after {tally.sent} requests and {tally.done} kills and upgrades; {go_on}")
        return INTERRUPTED_EXIT_CODE
    failures = [*tally.failures(options.least_equal), *soak.unfinished()]
    print("chaos: " + (", ".join(failures) or "nothing lost, nothing twice"))
    return 1 if failures else 0


async def _until_done_or_terminated(soak: Soak) -> None:
    running = asyncio.ensure_future(soak.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, running.cancel)
    await running


def _options(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--requests", type=_positive, default=100)
    parser.add_argument("--kills", type=_count, default=10)
    parser.add_argument(
        "--kill",
        type=_victims,
        default=(disturbances.ENGINE,),
        metavar="WHAT,…",
        help=f"what is killed, in turn: {', '.join(disturbances.VICTIMS)} (the three at the same time)",
    )
    parser.add_argument("--upgrades", type=_count, default=0, help="`vestal up` after a change of the code")
    parser.add_argument("--clients", type=_positive, default=6, help="requests at once")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--minutes", type=float, help="end after this time, even if requests and kills are left"
    )
    parser.add_argument(
        "--time-limit", type=float, default=86_400.0, metavar="S", help="fail after this time"
    )
    parser.add_argument("--least-equal", type=float, default=LEAST_EQUAL, metavar="SHARE")
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        help="keep the counts here, and go on from them after an interruption",
    )
    parser.add_argument("--result", type=Path, metavar="FILE", help="write the table here, as Markdown")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON, too")
    parser.add_argument(
        "--keep-home", action="store_true", help="do not delete the stack's home, with its logs"
    )
    parser.add_argument(
        "--first-port", type=int, default=0, metavar="PORT", help="of three; default: free ones"
    )
    return Options(**vars(parser.parse_args(arguments)))


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"give a number of at least 1, not {text}")
    return value


def _count(text: str) -> int:
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"give a number of at least 0, not {text}")
    return value


def _victims(text: str) -> tuple[str, ...]:
    victims = tuple(text.split(","))
    if unknown := [name for name in victims if name not in disturbances.VICTIMS]:
        message = f"{unknown[0]!r} cannot be killed; choose among {', '.join(disturbances.VICTIMS)}"
        raise argparse.ArgumentTypeError(message)
    return victims


if __name__ == "__main__":
    sys.exit(main())
