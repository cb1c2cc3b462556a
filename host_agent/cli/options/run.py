"""The options of the commands that start, stop and repair: up, recover, agent."""

import argparse


def add(parsers: dict[str, argparse.ArgumentParser]) -> None:
    parsers["up"].add_argument(
        "--timeout", type=float, default=300.0, metavar="S", help="seconds to wait for healthy services (300)"
    )
    parsers["recover"].add_argument("--once", action="store_true", help="run one pass (the default)")
    recover = parsers["recover"].add_mutually_exclusive_group()
    recover.add_argument("--dry-run", action="store_true", help="show what a pass would do")
    recover.add_argument(
        "--reset", action="store_true", help="also start what has failed too often or was stopped by hand"
    )
    parsers["recover"].add_argument("--json", action="store_true", help="print the report as JSON")
    parsers["agent"].add_argument(
        "--managed",
        action="store_true",
        help="as started by launchd or systemd: exit with 0 if another agent runs",
    )
    parsers["agent"].add_argument(
        "--check",
        action="store_true",
        help="only import everything, read the settings, and print what is installed as digests",
    )
    parsers["agent"].add_argument(
        "--with-watchdog",
        action="store_true",
        help="as started by `vestal up`: with a small process that starts the agent again when it has died",
    )
