"""The options of the commands that show something: status, top, doctor, incidents, logs, cache."""

import argparse


def add(parsers: dict[str, argparse.ArgumentParser]) -> None:
    status = parsers["status"].add_mutually_exclusive_group()
    status.add_argument("--json", action="store_true", help="print the answer of the agent's GET /status")
    status.add_argument("--open", action="store_true", help="open the status page in a browser")
    status.add_argument("--watch", action="store_true", help="show it live, until Ctrl-C")
    parsers["top"].add_argument("--json", action="store_true", help="print the present once, as JSON")
    parsers["doctor"].add_argument("--json", action="store_true", help="print the findings as JSON")
    incidents = parsers["incidents"]
    incidents.add_argument(
        "-n", "--lines", type=int, metavar="N", help="the newest N (20; with --since, all)"
    )
    incidents.add_argument(
        "--since",
        metavar="WHEN",
        help="only those since then: 10m, 2h, 14:30, 2026-11-28, '2026-11-28 14:30'",
    )
    incidents.add_argument("--json", action="store_true", help="print them as JSON")
    incidents.add_argument("id", nargs="?", type=int, metavar="ID", help="tell this one, with its raw lines")
    logs = parsers["logs"]
    logs.add_argument("-f", "--follow", action="store_true", help="go on with new lines as they are written")
    logs.add_argument(
        "-n", "--lines", type=int, metavar="N", help="the last N lines of each log (20; with --since, all)"
    )
    logs.add_argument(
        "--since",
        metavar="WHEN",
        help="only lines since then: 10m, 2h, 14:30, 2026-11-28, '2026-11-28 14:30'",
    )
    logs.add_argument(
        "--grep", metavar="REGEX", help="only lines that match, as they are written or as they are shown"
    )
    logs.add_argument("--json", action="store_true", help="print one JSON object for each line")
    logs.add_argument(
        "service",
        nargs="?",
        help="agent, mlx_server, mlx_engine, ollama, orchestrator or nightly; all of them by default",
    )
    cache = parsers["cache"]
    cache.add_argument(
        "action",
        nargs="?",
        choices=("ls", "clear", "verify"),
        default="ls",
        help="ls (the default) lists it by model, clear empties it, verify deletes corrupt files",
    )
    cache.add_argument("--json", action="store_true", help="print the result as JSON")
