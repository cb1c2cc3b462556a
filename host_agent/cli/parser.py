"""The commands of `vestal`, their modules and their options. It imports nothing of Vestal, so that `--help`
is fast.

To add a command, write a module with `run(options, config) -> int`, which returns the exit code, add it to
COMMANDS, and add its options in `build`.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """The module of a command, below `host_agent.cli`, and one or two sentences for its help."""

    module: str
    help: str


COMMANDS = {
    "up": Command("run.up", "Start everything, and wait until it is healthy."),
    "down": Command("run.down", "Stop everything; no process, container or port of Vestal remains."),
    "recover": Command("run.recover", "Run one recovery pass now."),
    "agent": Command("run.agent", "Run the host agent in the foreground."),
    "server": Command("run.server", "Run the MLX server in the foreground, without an agent."),
    "status": Command(
        "status.status",
        "Show each service and its state. The exit code is 0 for healthy, 1 for degraded, 2 for down.",
    ),
    "top": Command("top.top", "Show the requests in flight and the memory of the MLX server, live."),
    "doctor": Command(
        "inspect.doctor",
        "Find out what is wrong with this machine, and show the remedies. "
        "The exit code is 1 if something is wrong.",
    ),
    "logs": Command("logs.logs", "Show what the services have logged, merged by time, in sentences."),
    "models": Command("inspect.models", "List, fetch or remove models."),
    "cache": Command("inspect.cache", "List, check or empty the prompt cache on disk."),
    "token": Command("inspect.token", "Print the token."),
    "version": Command("inspect.version", "Print the version."),
    "launch": Command(
        "launch.launch",
        "Start an agent or another program with a model of this machine, or list those that are known.",
    ),
    "chat": Command("chat.chat", "Talk with a model in the terminal, or ask it one question from a pipe."),
    "demo": Command(
        "chat.demo",
        "Tell a story, kill the engine in mid-sentence, and show that the story goes on. "
        "The exit code is 0 if nothing was lost.",
    ),
    "task": Command(
        "orchestrator.task",
        "Give the agents a goal, and wait for their answer. "
        "The exit code is 0 for done, 1 for failed, 2 for cancelled.",
    ),
    "search": Command(
        "orchestrator.search", "Search the agents' knowledge. The exit code is 1 if nothing was found."
    ),
    "install": Command(
        "install.install",
        "Let launchd or systemd start the agent, restart it when it fails, and recover every 300 s.",
    ),
    "uninstall": Command("install.uninstall", "Stop what install started, and delete what it wrote."),
}


def build() -> argparse.ArgumentParser:
    """Return the parser; the parsed options have the command's name in `command`."""
    parser = argparse.ArgumentParser(
        prog="vestal",
        description="Keep the LLM servers of this machine running.",
        epilog="`vestal COMMAND --help` shows the options of a command.",
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parsers = {
        name: subparsers.add_parser(name, help=command.help, description=command.help)
        for name, command in COMMANDS.items()
    }
    _add_run_options(parsers)
    _add_inspect_options(parsers)
    _add_launch_options(parsers["launch"])
    _add_chat_options(parsers["chat"])
    _add_demo_options(parsers["demo"])
    _add_task_options(parsers["task"])
    _add_search_options(parsers["search"])
    _add_install_options(parsers)
    return parser


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options in `arguments`, by default those of this process.

    Arguments after `--` are passed on to the program that `vestal launch` starts.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    passed_on: list[str] = []
    if given[:1] == ["launch"] and "--" in given:
        at = given.index("--")
        given, passed_on = given[:at], given[at + 1 :]
    options = build().parse_args(given)
    options.arguments = passed_on
    return options


def _add_run_options(parsers: dict[str, argparse.ArgumentParser]) -> None:
    parsers["up"].add_argument(
        "--timeout", type=float, default=300.0, metavar="S", help="seconds to wait for healthy services (300)"
    )
    recover = parsers["recover"].add_mutually_exclusive_group()
    recover.add_argument("--once", action="store_true", help="run one pass (the default)")
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


def _add_inspect_options(parsers: dict[str, argparse.ArgumentParser]) -> None:
    status = parsers["status"].add_mutually_exclusive_group()
    status.add_argument("--json", action="store_true", help="print the answer of the agent's GET /status")
    status.add_argument("--open", action="store_true", help="open the status page in a browser")
    status.add_argument("--watch", action="store_true", help="show it live, until Ctrl-C")
    parsers["top"].add_argument("--json", action="store_true", help="print the present once, as JSON")
    parsers["doctor"].add_argument("--json", action="store_true", help="print the findings as JSON")
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
    models = parsers["models"]
    models.add_argument(
        "action",
        nargs="?",
        choices=("list", "pull", "ensure", "remove"),
        default="list",
        help="list (the default) shows the installed models; pull and ensure fetch what is missing",
    )
    models.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="models of the configuration, the Hugging Face hub (mlx-community/NAME) or Ollama's library",
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


def _add_launch_options(launch: argparse.ArgumentParser) -> None:
    launch.usage = "vestal launch [-h] [--model MODEL] [--show | --json] [PROGRAM] [-- ARGUMENT ...]"
    launch.add_argument(
        "program", nargs="?", metavar="PROGRAM", help="claude, codex, …; without it, list all"
    )
    launch.add_argument("--model", help="use this model; by default an installed one that fits")
    how = launch.add_mutually_exclusive_group()
    how.add_argument("--show", action="store_true", help="show the settings, and start nothing")
    how.add_argument("--json", action="store_true", help="print them, or the list, as JSON; start nothing")


def _add_chat_options(chat: argparse.ArgumentParser) -> None:
    chat.add_argument("model", nargs="?", help="by default one that is loaded, or the largest")
    chat.add_argument("prompt", nargs="?", help="ask this, print the answer, and end")


def _add_demo_options(demo: argparse.ArgumentParser) -> None:
    demo.add_argument("--yes", action="store_true", help="also if requests of others have to wait for it")


def _add_task_options(task: argparse.ArgumentParser) -> None:
    action = task.add_mutually_exclusive_group(required=True)
    action.add_argument("goal", nargs="?", metavar="GOAL", help="what to do; - reads it from stdin")
    action.add_argument("--follow", metavar="ID", help="wait for the answer of an earlier task")
    action.add_argument("--cancel", metavar="ID", help="cancel a task")
    action.add_argument("--list", action="store_true", help="list the last tasks")
    task.add_argument(
        "--agent",
        action="append",
        metavar="NAME",
        help="ask this agent (repeat for several); without it, the lead makes a plan",
    )
    task.add_argument(
        "--key", help="idempotency key: the same key is the same task, however often it is sent"
    )
    task.add_argument("--detach", action="store_true", help="print the task's id, and do not wait")
    task.add_argument("--json", action="store_true", help="print the finished task as JSON")


def _add_search_options(search: argparse.ArgumentParser) -> None:
    search.add_argument("query", help="what to search for")
    search.add_argument("-n", "--count", type=int, default=5, metavar="N", help="number of results (5)")
    search.add_argument("--agent", metavar="NAME", help="search only this agent's knowledge")
    search.add_argument(
        "--path", metavar="PREFIX", help="search only files whose path begins with this (guide/)"
    )
    search.add_argument("--json", action="store_true", help="print the orchestrator's answer as JSON")


def _add_install_options(parsers: dict[str, argparse.ArgumentParser]) -> None:
    install = parsers["install"]
    action = install.add_mutually_exclusive_group()
    action.add_argument(
        "--show",
        action="store_true",
        help="show the installed jobs and their state (exit code 0 if all is well, else 1)",
    )
    action.add_argument(
        "--server-only", action="store_true", help="install the MLX server alone, without the agent"
    )
    install.add_argument(
        "--daemon",
        action="store_true",
        help="macOS: run from boot on, without a login at the screen (prints the commands that need sudo)",
    )
    install.add_argument("--json", action="store_true", help="with --show: print it as JSON")
    for name in ("install", "uninstall"):
        parsers[name].add_argument("--dry-run", action="store_true", help="show what it would do")
