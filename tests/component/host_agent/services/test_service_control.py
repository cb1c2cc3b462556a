"""What a person starts or stops: every service although another fails, and nothing once the agent stops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from host_agent.errors import NotPossible
from host_agent.journal import Journal
from host_agent.services.orchestrator.mode import Mode, ModeDecision
from host_agent.services.service_control import ServiceControl
from vestal.supervision import State, StopTimeout
from vestal.web.http_error import HttpError


class Services:
    """Services that were stopped by hand. Those in `broken` cannot be started, and a start waits for
    `may_start`.
    """

    def __init__(self, *broken: str) -> None:
        self.broken, self.started = broken, list[str]()
        self.may_start = asyncio.Event()
        self.may_start.set()

    def control(self, journal: Journal, mode: Mode = Mode.DOCKER) -> ServiceControl:
        states = {"mlx_server": State.STOPPED, "orchestrator": State.STOPPED, "nightly": State.STOPPED}
        supervisor = SimpleNamespace(
            status=lambda: {name: SimpleNamespace(state=state) for name, state in states.items()},
            start_child=self._start_child,
        )
        containers: Any = SimpleNamespace(clear_manual_stop=self.started.append)
        ollama: Any = SimpleNamespace(start_again=self._start_ollama)
        nothing: Any = None
        decision = ModeDecision(mode, "")
        return ServiceControl(cast(Any, supervisor), containers, nothing, ollama, decision, journal)

    async def _start_child(self, name: str, cause: str, *, reset: bool) -> None:
        await self.may_start.wait()
        if name in self.broken:
            raise StopTimeout(f"{name} did not end", child=name)
        self.started.append(name)

    async def _start_ollama(self) -> None:
        if "ollama" in self.broken:
            raise NotPossible("`brew services start ollama` failed: Permission denied")
        self.started.append("ollama")


@pytest.fixture
def journal(home: Path) -> Iterator[Journal]:
    opened = Journal(home / "journal.db")
    yield opened
    opened.close()


@pytest.mark.parametrize("mode", [Mode.DOCKER, Mode.NATIVE])
@pytest.mark.parametrize("broken", ["ollama", "mlx_server"])
async def test_start_of_all_services_starts_the_others_if_one_fails_and_records_the_failure(
    journal: Journal, mode: Mode, broken: str
):
    """An Ollama that could not be started once left containers stopped by hand, and ended `vestal up`."""
    services = Services(broken)
    await services.control(journal, mode).start_all()
    assert set(services.started) == {"mlx_server", "orchestrator", "nightly", "ollama"} - {broken}
    [entry] = journal.newest()
    assert (entry["component"], entry["event"]) == (broken, "start_failed")


async def test_service_control_that_is_closed_cancels_a_start_and_refuses_further_ones(journal: Journal):
    services = Services()
    services.may_start.clear()
    control = services.control(journal)
    control.request("mlx_server", "start")
    await asyncio.sleep(0)
    await control.close()
    services.may_start.set()
    await control.wait()
    with pytest.raises(HttpError, match="The agent is stopping"):
        control.request("mlx_server", "start")
    with pytest.raises(HttpError, match="The agent is stopping"):
        await control.start_all()
    assert services.started == []
    assert [entry["event"] for entry in journal.newest()] == ["start_requested"]


async def test_start_of_all_services_under_way_is_cancelled_and_refused_when_the_agent_stops(
    journal: Journal,
):
    """It once went on in its request, and started an Ollama that outlived the agent."""
    services = Services()
    services.may_start.clear()
    control = services.control(journal, Mode.OFF)
    starting = asyncio.create_task(control.start_all())
    await asyncio.sleep(0.01)
    await control.close()
    services.may_start.set()
    with pytest.raises(HttpError, match="The agent is stopping"):
        await starting
    assert services.started == []


@pytest.mark.parametrize("can_hand_over", [True, False])
async def test_reset_of_a_given_up_engine_counts_as_replacing_its_gateway_until_the_replacement_is_over(
    journal: Journal, can_hand_over: bool
):
    """The pass of `vestal recover --reset` judged the engine of the gateway that was about to be replaced."""
    may_end = asyncio.Event()

    async def engine_status(fresh: bool) -> SimpleNamespace:
        return SimpleNamespace(state=State.OPEN)

    async def can(gateway: object) -> bool:
        return can_hand_over

    async def replace(*arguments: object, **options: object) -> None:
        await may_end.wait()

    async def start_ollama() -> None:
        return None

    supervisor: Any = SimpleNamespace(
        status=lambda: {"mlx_server": SimpleNamespace(state=State.READY)},
        hand_over_child=replace,
        restart_child=replace,
    )
    mlx: Any = SimpleNamespace(engine_status=engine_status, can_hand_over=can)
    ollama: Any = SimpleNamespace(start_again=start_ollama)
    nothing: Any = None
    control = ServiceControl(supervisor, nothing, mlx, ollama, ModeDecision(Mode.OFF, ""), journal)
    assert not control.is_replacing_gateway
    await control.start_all()
    assert control.is_replacing_gateway
    may_end.set()
    await control.wait()
    assert not control.is_replacing_gateway
