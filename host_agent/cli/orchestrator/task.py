"""`vestal task`: give the orchestrator's agents a goal, and wait for the answer.

Progress goes to stderr, the answer to stdout. The exit code is 0 for done, 1 for failed, 2 for cancelled, 64
for a refused request, and 69 if no orchestrator answers or it cannot use its database. The task runs in the
orchestrator, and continues if this command ends.
"""

import argparse
import json
import sys
import time
import uuid
from typing import Any

from host_agent.cli.orchestrator.client import OrchestratorClient, OrchestratorUnavailable
from host_agent.cli.orchestrator.task_progress import (
    EXIT_CODES,
    FINISHED,
    TaskProgress,
    result_text,
)
from host_agent.cli.screen.styled import printable
from host_agent.cli.table import Column, print_table
from host_agent.errors import OrchestratorRefused, OrchestratorUnreachable
from vestal.config import Config

INTERRUPTED_EXIT_CODE = 130
RECONNECT_TIMEOUT_S = 120.0  # the orchestrator may be restarting; its tasks are kept
RECONNECT_DELAY_S = 1.0
MAX_GOAL_CHARS = 16_000  # the orchestrator's own limit; it does not read a larger body
LISTED_GOAL_CHARS = 60
LIST_COLUMNS = (Column("id"), Column("state"), Column("goal", wraps=True))


def run(options: argparse.Namespace, config: Config) -> int:
    client = OrchestratorClient(config)
    if options.list:
        return _list(options, client)
    if options.cancel:
        cancelled = client.delete(f"/tasks/{_parse_id(options.cancel)}")
        print(json.dumps(cancelled, indent=2) if options.json else f"task {cancelled['id']}: cancelled")
        return 0
    task_id = _parse_id(options.follow) if options.follow else _submit(options, client)
    if options.detach:
        print(json.dumps({"id": task_id}) if options.json else task_id)
        return 0
    try:
        return _print_result(options, _wait_for_end(client, task_id))
    except KeyboardInterrupt:
        _print_progress(
            f"The task goes on: `vestal task --follow {task_id}` shows it, `--cancel {task_id}` cancels it."
        )
        return INTERRUPTED_EXIT_CODE


def _submit(options: argparse.Namespace, client: OrchestratorClient) -> str:
    """Send the goal to the orchestrator, and return the id of the new task.

    Raises OrchestratorRefused if the goal is empty or longer than MAX_GOAL_CHARS, or if the orchestrator
    refuses it.
    """
    goal = sys.stdin.read(MAX_GOAL_CHARS + 1) if options.goal == "-" else options.goal or ""
    if not goal.strip():
        raise OrchestratorRefused('There is no goal: say what to do, as in `vestal task "…"`.')
    if len(goal) > MAX_GOAL_CHARS:
        raise OrchestratorRefused(
            f"The goal is over {MAX_GOAL_CHARS} characters: put it into a file"
            " of the knowledge, and ask about that."
        )
    body: dict[str, Any] = {"goal": goal}
    if options.key:
        body["idempotency_key"] = options.key
    if options.agent:
        body["agents"] = options.agent
    return str(client.post("/tasks", body)["id"])


def _wait_for_end(client: OrchestratorClient, task_id: str) -> dict[str, Any]:
    """Print the task's progress until the task ends, and return the finished task.

    Raises OrchestratorUnreachable if the orchestrator does not answer, or cannot show the task, for more than
    RECONNECT_TIMEOUT_S.
    """
    progress, away_since = TaskProgress(), None
    while True:
        try:
            for task in client.events(f"/tasks/{task_id}/events"):
                away_since = None
                for line in progress.new_lines(task):
                    _print_progress(line)
                if task["state"] in FINISHED:
                    return task
        except OrchestratorUnreachable as error:
            if away_since is None:
                away_since = time.monotonic()
                said = str(error).rstrip(".") if isinstance(error, OrchestratorUnavailable) else ""
                _print_progress(f"{said or 'the orchestrator is away'}; the task goes on when it is back")
            if time.monotonic() - away_since > RECONNECT_TIMEOUT_S:
                raise
        time.sleep(RECONNECT_DELAY_S)


def _print_result(options: argparse.Namespace, task: dict[str, Any]) -> int:
    if options.json:
        print(json.dumps(task, indent=2))
    elif task["state"] == "done":
        print(result_text(task))
    else:
        _print_progress(result_text(task))
    return EXIT_CODES[task["state"]]


def _list(options: argparse.Namespace, client: OrchestratorClient) -> int:
    tasks = client.get("/tasks")["tasks"]
    if options.json:
        print(json.dumps(tasks, indent=2))
    elif tasks:
        print_table(LIST_COLUMNS, [_row(task) for task in tasks])
    return 0


def _row(task: dict[str, Any]) -> tuple[str, ...]:
    goal = printable(" ".join(task["goal"].split()))[:LISTED_GOAL_CHARS]
    return str(task["id"]), str(task["state"]), goal


def _parse_id(text: str) -> str:
    """Return a task's id in the standard form of a UUID.

    Raises OrchestratorRefused if `text` is no UUID, so that no other text becomes part of a URL.
    """
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise OrchestratorRefused(
            f"{text!r} is not the id of a task: `vestal task --list` shows the ids."
        ) from None


def _print_progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
