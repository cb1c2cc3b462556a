"""The options of the commands for the orchestrator: task, search."""

import argparse


def add(parsers: dict[str, argparse.ArgumentParser]) -> None:
    _add_task_options(parsers["task"])
    _add_search_options(parsers["search"])


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
