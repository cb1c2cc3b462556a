"""Remedies look once more before they start anything: earlier remedies of the pass may have taken minutes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from host_agent.errors import NotPossible
from host_agent.recovery.apply_remedies import HostRemedies
from host_agent.recovery.ollama_remedies import OllamaRemedies
from host_agent.recovery.remedies import ControlThroughOwner, Remedy, StartChild
from host_agent.recovery.restart_budget import RestartBudget
from vestal.supervision import ChildStatus, State


class Machine:
    """Stands for the supervisor and for Ollama, and notes what is started."""

    def __init__(self, *, stopped_by_hand: bool, runs: bool = False) -> None:
        self.started: list[str] = []
        self.children = {"mlx_server": ChildStatus(State.STOPPED, stopped_by_hand=stopped_by_hand)}
        self.controller = SimpleNamespace(
            stopped_by_hand=stopped_by_hand, start=self.start, control_through_owner=self.start_child
        )
        self.observation = SimpleNamespace(
            owner=SimpleNamespace(runs=runs), verdict=SimpleNamespace(ok=False)
        )

    def status(self) -> dict[str, ChildStatus]:
        return self.children

    def forget_failures(self) -> None:
        pass

    async def check(self) -> Any:
        return self.observation

    async def start(self, cause: str) -> None:
        self.started.append("ollama")

    async def start_child(self, service: str, cause: str) -> None:
        self.started.append(service)

    async def apply(self, remedy: Remedy) -> None:
        fake: Any = self
        await HostRemedies(fake, fake, OllamaRemedies(fake, 1.0), RestartBudget(), 1.0).apply(remedy)


REMEDIES = [
    StartChild("mlx_server"),
    StartChild("ollama"),
    ControlThroughOwner("ollama", "start", ""),
    ControlThroughOwner("ollama", "restart", ""),
]


@pytest.mark.parametrize("remedy", REMEDIES, ids=str)
async def test_service_that_a_person_has_stopped_since_the_check_is_not_started(remedy: Remedy):
    machine = Machine(stopped_by_hand=True)
    with pytest.raises(NotPossible, match="a person has stopped it meanwhile, so it was left alone"):
        await machine.apply(remedy)
    assert machine.started == []


@pytest.mark.parametrize("remedy", REMEDIES, ids=str)
async def test_service_that_nobody_has_stopped_is_started(remedy: Remedy):
    machine = Machine(stopped_by_hand=False)
    await machine.apply(remedy)
    assert len(machine.started) == 1
