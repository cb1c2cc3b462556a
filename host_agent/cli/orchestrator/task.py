"""`vestal task`: a goal for the orchestrator's agents, followed to its answer.

Progress goes to stderr, the answer to stdout. Exit code 0 done, 1 failed, 2 cancelled, 64 refused, 69 no
orchestrator. The task is the orchestrator's: whatever happens to this command, it goes on.
"""

import argparse
import json
import sys
import time
import uuid
from typing import Any

from host_agent.cli.orchestrator.client import OrchestratorClient
from host_agent.cli.orchestrator.task_progress import EXIT_CODES, FINISHED, Progress, ending, printable
from host_agent.errors import OrchestratorRefused, OrchestratorUnreachable
from vestal.config import Config

INTERRUPTED = 130
AWAY_FOR_S = 120.0  # it may be starting again; the task is not lost
LOOK_AGAIN_S = 1.0
MOST_GOAL_CHARS = 16_000  # the orchestrator's own limit; a larger body would not even be read


def run(options: argparse.Namespace, config: Config) -> int:
    client = OrchestratorClient(config)
    if options.list:
        return _list(options, client)
    if options.cancel:
        print(f"task {client.delete(f'/tasks/{_id(options.cancel)}')['id']}: cancelled")
        return 0
    task_id = _id(options.follow) if options.follow else _submit(options, client)
    if options.detach:
        print(json.dumps({"id": task_id}) if options.json else task_id)
        return 0
    try:
        return _show(options, _followed(client, task_id))
    except KeyboardInterrupt:
        _say(f"The task goes on: `vestal task --follow {task_id}` shows it, `--cancel {task_id}` ends it.")
        return INTERRUPTED


def _submit(options: argparse.Namespace, client: OrchestratorClient) -> str:
    goal = sys.stdin.read(MOST_GOAL_CHARS + 1) if options.goal == "-" else options.goal or ""
    if not goal.strip():
        raise OrchestratorRefused('There is no goal: say what is to be done, `vestal task "…"`.')
    if len(goal) > MOST_GOAL_CHARS:
        raise OrchestratorRefused(
            f"The goal is over {MOST_GOAL_CHARS} characters: put it into a file"
            " among the knowledge, and ask about that."
        )
    body: dict[str, Any] = {"goal": goal}
    if options.key:
        body["idempotency_key"] = options.key
    if options.agent:
        body["agents"] = options.agent
    return str(client.post("/tasks", body)["id"])


def _followed(client: OrchestratorClient, task_id: str) -> dict[str, Any]:
    """The task at its end. An orchestrator that goes away meanwhile is waited for."""
    progress, away_since = Progress(), None
    while True:
        try:
            for task in client.events(f"/tasks/{task_id}/events"):
                away_since = None
                for line in progress.lines(task):
                    _say(line)
                if task["state"] in FINISHED:
                    return task
        except OrchestratorUnreachable:
            if away_since is None:
                away_since = time.monotonic()
                _say("the orchestrator is away; the task goes on when it is back")
            if time.monotonic() - away_since > AWAY_FOR_S:
                raise
        time.sleep(LOOK_AGAIN_S)


def _show(options: argparse.Namespace, task: dict[str, Any]) -> int:
    if options.json:
        print(json.dumps(task, indent=2))
    elif task["state"] == "done":
        print(ending(task))
    else:
        _say(ending(task))
    return EXIT_CODES[task["state"]]


def _list(options: argparse.Namespace, client: OrchestratorClient) -> int:
    tasks = client.get("/tasks")["tasks"]
    if options.json:
        print(json.dumps(tasks, indent=2))
        return 0
    for task in tasks:
        print(printable(f"{task['id']}  {task['state']:9}  {' '.join(task['goal'].split())[:60]}"))
    return 0


def _id(given: str) -> str:
    """An id that is none would be another address."""
    try:
        return str(uuid.UUID(given))
    except ValueError:
        raise OrchestratorRefused(f"{given!r} is no task's id: `vestal task --list` shows them.") from None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
