"""The agent replaces a gateway that reports that the installed program has changed under it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from host_agent.services import MLX_SERVER
from host_agent.services.mlx import service
from host_agent.upgrade import installed, upgrades
from host_agent.watchdog.child import AgentRestarter
from mlx_server.gateway import engine_events
from vestal.config import load
from vestal.supervision import ChildStatus, Event, HandoverRefused, State


class Agent:
    """The upgrades of an agent whose gateway was started with the digest `started_with`."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started_with: str) -> None:
        monkeypatch.setattr(installed, "of_agent", lambda config: "new.1")
        monkeypatch.setattr(installed, "of_parts", lambda config: {MLX_SERVER: "new.1", "agent": "new.1"})
        monkeypatch.setattr(installed, "started_with", lambda pid: started_with)
        self.handovers = 0
        self.can_hand_over = True
        self.refusal: HandoverRefused | None = None
        self.journal: list[tuple[str, ...]] = []
        supervisor: Any = SimpleNamespace(
            status=lambda: {MLX_SERVER: ChildStatus(State.READY, process_pid=7)},
            wait_for=self._nothing,
            hand_over_child=self._hand_over,
        )
        mlx: Any = SimpleNamespace(can_hand_over=self._can_hand_over, requests=1)
        journal: Any = SimpleNamespace(record=lambda *entry: self.journal.append(entry))
        watchdog: Any = SimpleNamespace(pid=None)
        config = load({"VESTAL_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}, tmp_path)
        self.upgrades = upgrades.Upgrades(
            config, supervisor, watchdog, mlx, journal, AgentRestarter.SERVICE_MANAGER, {}
        )

    async def _nothing(self, *arguments: object) -> None:
        return None

    async def _can_hand_over(self, gateway: ChildStatus) -> bool:
        return self.can_hand_over

    async def _hand_over(self, name: str) -> None:
        self.handovers += 1
        if self.refusal is not None:
            raise self.refusal

    async def hears(self, name: str) -> None:
        self.upgrades.on_gateway_event(Event(0.0, 1, "mlx_server", name, "", {}))
        tasks = [task for task in asyncio.all_tasks() if task.get_name() == "new gateway"]
        await asyncio.gather(*tasks)


def test_agent_and_gateway_call_the_event_of_a_changed_program_by_the_same_name():
    assert service.PROGRAM_CHANGED == engine_events.PROGRAM_CHANGED


async def test_gateway_of_an_older_program_hands_over_to_a_new_one_when_it_reports_the_change(
    tmp_path, monkeypatch
):
    agent = Agent(tmp_path, monkeypatch, "old.1")
    await agent.hears("engine_ready")
    assert agent.handovers == 0
    await agent.hears(service.PROGRAM_CHANGED)
    assert agent.handovers == 1
    assert [entry[1] for entry in agent.journal] == ["gateway_outdated", "gateway_replaced"]


async def test_gateway_of_the_installed_program_is_not_replaced_whatever_it_reports(tmp_path, monkeypatch):
    """Otherwise a damaged installation would have its gateways replaced one after another."""
    agent = Agent(tmp_path, monkeypatch, "new.1")
    await agent.hears(service.PROGRAM_CHANGED)
    assert agent.handovers == 0


async def test_refused_handover_of_a_gateway_of_an_older_program_is_recorded(tmp_path, monkeypatch):
    agent = Agent(tmp_path, monkeypatch, "old.1")
    agent.refusal = HandoverRefused("the new process ended")
    await agent.hears(service.PROGRAM_CHANGED)
    assert agent.journal[-1] == ("agent", "upgrade_refused", "The new process ended. The old one goes on.")


async def test_gateway_of_an_older_program_that_cannot_hand_over_goes_on_with_its_engine(
    tmp_path, monkeypatch
):
    """It is not restarted, which would refuse requests although nobody has asked for an upgrade."""
    agent = Agent(tmp_path, monkeypatch, "old.1")
    agent.can_hand_over = False
    await agent.hears(service.PROGRAM_CHANGED)
    assert (agent.handovers, agent.journal) == (0, [])
