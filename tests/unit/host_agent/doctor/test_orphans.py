"""Finding the servers of a home that nothing supervises."""

from __future__ import annotations

import pytest

from host_agent.doctor.services import orphans
from host_agent.doctor.services.orphans import HomeProcesses
from vestal.platform.processes.ps import PsProcess

GATEWAY, ENGINE = "mlx_server.gateway", "mlx_server.engine"


@pytest.mark.parametrize(
    ("parent", "agent_is_alive", "recorded", "is_orphan"),
    [
        (1, False, {20}, True),  # the agent was killed, and no other started
        (1, True, {20}, False),  # the next agent has adopted it
        (1, True, {99}, True),  # the next agent has started another gateway
        (5, False, set(), False),  # a person's shell started it
        (6, False, {20}, True),  # systemd --user adopts orphans
        (404, False, {20}, True),
    ],
)
def test_orphaned_servers_include_an_unsupervised_gateway(
    parent: int, agent_is_alive: bool, recorded: set[int], is_orphan: bool
):
    table = {
        1: PsProcess(1, 0, 0, "S", 99, "/sbin/launchd"),
        5: PsProcess(5, 1, 0, "S", 99, "-zsh"),
        6: PsProcess(6, 1, 0, "S", 99, "/lib/systemd/systemd --user"),
        20: PsProcess(20, parent, 0, "S", 9, "python -m mlx_server.gateway"),
    }
    ours = HomeProcesses({20: GATEWAY}, recorded, agent_is_alive)
    assert [process.pid for process in orphans.orphans(table, ours)] == ([20] if is_orphan else [])


def test_orphaned_servers_include_an_engine_only_if_its_gateway_is_gone():
    table = {
        20: PsProcess(20, 1, 0, "S", 9, "python -m mlx_server.gateway"),
        21: PsProcess(21, 20, 0, "S", 9, "python -m mlx_server.engine"),
        22: PsProcess(22, 1, 0, "S", 9, "python -m mlx_server.engine"),
    }
    found = orphans.orphans(
        table, HomeProcesses({20: GATEWAY, 21: ENGINE, 22: ENGINE}, {20}, agent_is_alive=True)
    )
    assert [process.pid for process in found] == [22]
