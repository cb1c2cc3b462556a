"""Tell the agent to replace the processes that run older code or settings, and show the progress."""

import time

from host_agent.agent import outdated, running_settings, single_instance
from host_agent.agent_client import AgentClient
from host_agent.cli.run.down import stop_agent
from host_agent.cli.run.progress import Progress
from host_agent.errors import AgentUnreachable, UpgradeRefused
from host_agent.installed.comparison import OLDER
from host_agent.upgrade import request_file
from host_agent.upgrade.installed import AGENT
from vestal.config import Config

POLL_S = 0.2
UNREACHABLE_FOR_S = 30.0
UPGRADE_TIMEOUT_S = 300.0
MOST_UPGRADES = 3
ANSWERS_WITHIN_S = 15.0
"""How long an agent may be too busy to answer before it is stopped instead of asked to replace itself."""


def replace_outdated(config: Config, progress: Progress) -> None:
    """Replace the processes of Vestal that are out of date, and wait until that is done.

    An outdated agent that cannot replace itself, because it is too old, does not answer, or uses the former
    place of a home folder that was moved, is stopped with its services instead. Raises UpgradeRefused if the
    new code or settings cannot start; the old processes then keep running.
    """
    why = outdated.parts(config)
    if not why or single_instance.running(config.home) is None:
        return
    client = AgentClient(config, _port_of_running_agent(config))
    if why.get(AGENT) in (OLDER, outdated.MOVED) or not _answers(client):
        if AGENT in why:
            progress.show(AGENT, f"{why[AGENT]}; stopping it and its services")
            stop_agent(config)
        return
    for _ in range(MOST_UPGRADES):
        request_file.write(config)
        joined = client.post("/upgrade")["state"] == "joined"
        _follow(config, client, progress)
        # The upgrade that was already under way may have been requested with other settings.
        if not joined or not outdated.parts(config):
            break
        client = AgentClient(config, _port_of_running_agent(config))
    request_file.remove(config.home)


def _answers(client: AgentClient) -> bool:
    return client.wait_until(client.answers, ANSWERS_WITHIN_S)


def _port_of_running_agent(config: Config) -> int:
    started_with = running_settings.read(config.home)
    return config.agent.port if started_with is None else started_with.port


def _follow(config: Config, client: AgentClient, progress: Progress) -> None:
    """Show the steps of the upgrade until it ends. The agent may answer on another port after the upgrade.

    Raises UpgradeRefused if the upgrade is refused, and AgentUnreachable if the agent does not answer or the
    upgrade takes too long.
    """
    clients, shown = [client, AgentClient(config)], 0
    answered_at = started_at = time.monotonic()
    while True:
        now = time.monotonic()
        try:
            report = clients[0].get("/upgrade")
        except AgentUnreachable:
            clients.reverse()
            if now - answered_at > UNREACHABLE_FOR_S:
                raise
            time.sleep(POLL_S)
            continue
        answered_at = now
        for step in report["steps"][shown:]:
            progress.show(step["part"], step["text"])
        shown = len(report["steps"])
        if report["state"] == "refused":
            raise UpgradeRefused(report["why"])
        if report["state"] in ("done", "idle"):
            return
        if now - started_at > UPGRADE_TIMEOUT_S:
            raise AgentUnreachable(f"The upgrade did not end within {UPGRADE_TIMEOUT_S:.0f} s.")
        time.sleep(POLL_S)
