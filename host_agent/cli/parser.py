"""What `vestal` understands. Imports nothing of ours, so that `--help` is quick."""

import argparse

COMMANDS = {
    "up": "start everything, and wait until it is healthy",
    "down": "stop everything; no process, container or port of ours stays",
    "status": "what lives, what does not, and why (exit code 0 healthy, 1 degraded, 2 down)",
    "doctor": "what is wrong with this machine, and the remedy (exit code 0 nothing, 1 something)",
    "recover": "one recovery pass, now",
    "task": "give the agents a goal and wait for their answer (exit code 0 done, 1 failed, 2 cancelled)",
    "logs": "show the logs",
    "agent": "the host agent in the foreground",
    "server": "the MLX server in the foreground, without an agent",
    "search": "search the agents' knowledge (exit code 0 something found, 1 nothing)",
    "models": "list, pull or ensure models",
    "cache": "what the prompt cache keeps on disk; `cache clear` empties it, `cache verify` checks it",
    "install": "start at login, be kept alive, and recover every 300 s (launchd or systemd); --show shows it",
    "uninstall": "stop what install started, and remove what it wrote",
    "token": "print the token",
    "version": "print the version",
}


def build() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vestal", description="Keeps local LLMs alight.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    added = {
        name: subparsers.add_parser(name, help=text, description=text) for name, text in COMMANDS.items()
    }
    _options(added)
    return parser


def _options(added: dict[str, argparse.ArgumentParser]) -> None:
    up = added["up"]
    up.add_argument("--timeout", type=float, default=300.0, metavar="S", help="how long to wait (300)")
    status = added["status"].add_mutually_exclusive_group()
    status.add_argument("--json", action="store_true", help="as the listener gives it")
    status.add_argument("--open", action="store_true", help="open the page in a browser")
    added["doctor"].add_argument("--json", action="store_true")
    recover = added["recover"].add_mutually_exclusive_group()
    recover.add_argument("--once", action="store_true", help="one pass (as without an option)")
    recover.add_argument("--dry-run", action="store_true", help="say what a pass would do")
    recover.add_argument("--reset", action="store_true", help="also try what was given up or stopped by hand")
    added["recover"].add_argument("--json", action="store_true", help="the report as JSON")
    logs = added["logs"]
    logs.add_argument("-f", "--follow", action="store_true")
    logs.add_argument("-n", "--lines", type=int, default=20, metavar="N")
    logs.add_argument("service", nargs="?", help="agent, mlx_server, mlx_engine, orchestrator or nightly")
    _search_options(added["search"])
    models = added["models"]
    models.add_argument("what", nargs="?", choices=("list", "pull", "ensure", "remove"), default="list")
    models.add_argument("names", nargs="*", metavar="NAME")
    added["cache"].add_argument("what", nargs="?", choices=("ls", "clear", "verify"), default="ls")
    added["cache"].add_argument("--json", action="store_true")
    added["agent"].add_argument(
        "--managed", action="store_true", help="as launchd and systemd start it: exit code 0 where one runs"
    )
    _task_options(added["task"])
    _install_options(added)


def _search_options(search: argparse.ArgumentParser) -> None:
    search.add_argument("query")
    search.add_argument("-n", "--count", type=int, default=5, metavar="N", help="so many results (5)")
    search.add_argument("--agent", metavar="NAME", help="in this agent's knowledge only")
    search.add_argument("--path", metavar="BEGINNING", help="in files whose path begins so (guide/)")
    search.add_argument("--json", action="store_true", help="as the orchestrator gives it")


def _task_options(task: argparse.ArgumentParser) -> None:
    what = task.add_mutually_exclusive_group(required=True)
    what.add_argument("goal", nargs="?", metavar="GOAL", help="what is to be done; - reads it from stdin")
    what.add_argument("--follow", metavar="ID", help="an earlier task, to its end")
    what.add_argument("--cancel", metavar="ID", help="end a task")
    what.add_argument("--list", action="store_true", help="the last tasks")
    task.add_argument(
        "--agent", action="append", metavar="NAME", help="ask this one (again for more); else the lead plans"
    )
    task.add_argument("--key", help="the same key is the same task, however often it is sent")
    task.add_argument("--detach", action="store_true", help="print the id, and do not wait")
    task.add_argument("--json", action="store_true", help="the task at its end, as JSON")


def _install_options(added: dict[str, argparse.ArgumentParser]) -> None:
    what = added["install"].add_mutually_exclusive_group()
    what.add_argument(
        "--show", action="store_true", help="what is installed, and how it runs (exit code 0 well, 1 not)"
    )
    what.add_argument("--server-only", action="store_true", help="the MLX server alone, without the agent")
    added["install"].add_argument(
        "--daemon",
        action="store_true",
        help="macOS: from boot on, without a login at the screen (prints the commands that need sudo)",
    )
    added["install"].add_argument("--json", action="store_true", help="with --show: for a program")
    for name in ("install", "uninstall"):
        added[name].add_argument("--dry-run", action="store_true", help="say what it would do")
