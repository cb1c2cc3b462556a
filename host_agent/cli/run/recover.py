"""`vestal recover`: have the agent run one recovery pass. If the agent is dead, start it first.

The exit code is 0 if all services are healthy after the recovery pass, else 1.
"""

import argparse
import json
import time
from typing import Any

from host_agent.agent.agent_state import AgentState, SilentAgent
from host_agent.agent_client import AgentClient
from host_agent.cli.run import background_agent
from host_agent.cli.run.background_agent import AgentStart
from host_agent.cli.screen.waiting import waiting_for
from host_agent.errors import AgentUnreachable
from vestal.config import Config

PASS_TIMEOUT_S = 900.0  # a recovery pass may wait for another build of the image, and then build it
POLL_S = 0.2
# What a pass would do about an agent that does not answer. It cannot start an agent whose port is taken.
WOULD = {
    AgentState.NOT_RUNNING: "start it",
    AgentState.SUSPENDED: "continue it",
    AgentState.ON_ANOTHER_PORT: "leave it as it is: `vestal up` applies the settings",
    AgentState.SILENT: "wait for it, or replace it if it hangs",
}


def run(options: argparse.Namespace, config: Config) -> int:
    client = AgentClient(config)
    if options.dry_run:
        return _dry_run(options, client)
    done = background_agent.ensure_running(config)
    if done is AgentStart.STARTED and not options.json:
        print("agent: it was not running; started")
    elif done is not AgentStart.ALREADY_RUNNING and not options.json:
        print(f"agent: it {done}")
    if options.reset:
        client.post("/recover/reset")
    run_id = client.post("/recover", {"ts": time.time()})["run_id"]
    with waiting_for("a recovery pass checks and repairs the services"):
        report = _wait_for_report(client, run_id)
    return _show(options, report)


def _dry_run(options: argparse.Namespace, client: AgentClient) -> int:
    if client.own_agent_answers():
        return _show(options, client.get("/recover/plan"))
    silent = client.why_silent()
    if options.json:
        return _show(options, _plan_without_agent(silent))
    would = WOULD.get(silent.state)
    plan = f"would {would}, and then check everything else" if would else silent.remedy
    print(f"agent: {silent.sentence}\n  {plan}")
    return 1


def _plan_without_agent(silent: SilentAgent) -> dict[str, Any]:
    """Return what a recovery pass would do about an agent that does not answer, in the form of the report
    that an agent gives of a dry run.
    """
    would = WOULD.get(silent.state)
    return {
        "state": "done",
        "found": [f"agent: {silent.sentence}"],
        "done": [f"agent: would {would}, and then check everything else"] if would else [],
        "left": [] if would else [f"agent: {silent.remedy}"],
        "healthy": False,
        "dry_run": True,
    }


def _wait_for_report(client: AgentClient, run_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + PASS_TIMEOUT_S
    while (report := client.get(f"/recover/{run_id}"))["state"] != "done":
        if time.monotonic() > deadline:
            raise AgentUnreachable(f"The pass {run_id} did not end within {PASS_TIMEOUT_S:.0f} s.")
        time.sleep(POLL_S)
    return report


def _show(options: argparse.Namespace, report: dict[str, Any]) -> int:
    if options.json:
        print(json.dumps(report, indent=2))
        return 0 if report["healthy"] else 1
    for key in ("found", "done", "left"):
        for line in report[key]:
            print(f"{key:6}{line}")
    if report["healthy"]:
        print("All services are healthy.")
    elif not report["left"]:
        print("Not all services are healthy yet: `vestal status` shows them.")
    return 0 if report["healthy"] else 1
