"""Real children, and supervisors that leave none behind."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from vestal.supervision import (
    Backoff,
    ChildSpec,
    Event,
    ProbePolicy,
    ProbeResult,
    RestartPolicy,
    State,
    Supervisor,
    start_time,
)

PROGRAMS = Path(__file__).resolve().parents[3] / "children"
DEADLINE_S = 10.0
QUICK = RestartPolicy(
    backoff=Backoff(0.05, 0.2),
    start_timeout_s=5,
    stop_timeout_s=0.3,
    stable_after_s=0,
    probe=ProbePolicy(interval_s=0.05, timeout_s=0.2, failures=2),
)


class MakeSpec(Protocol):
    def __call__(self, program: str, *args: object, name: str = "child", **fields: Any) -> ChildSpec: ...


@pytest.fixture
def spec() -> MakeSpec:
    """Makes the spec of a program in tests/children, with a quick policy; `policy` takes changes to it."""

    def make(program: str, *args: object, name: str = "child", **fields: Any) -> ChildSpec:
        command = (sys.executable, "-I", "-S", str(PROGRAMS / program), *map(str, args))
        policy = replace(QUICK, **fields.pop("policy", {}))
        return ChildSpec(name, command, policy=policy, **fields)

    return make


class House:
    """Supervisors made in a test, and what they told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.supervisors: list[Supervisor] = []

    def supervisor(self, *specs: ChildSpec, **options: Any) -> Supervisor:
        made = Supervisor(specs, on_event=self.events.append, **options)
        self.supervisors.append(made)
        return made

    async def up(self, *specs: ChildSpec, **options: Any) -> Supervisor:
        made = self.supervisor(*specs, **options)
        await made.start()
        for spec in specs:
            await made.wait_for(spec.name, {State.READY}, DEADLINE_S)
        return made

    def told(self, name: str) -> list[Event]:
        return [event for event in self.events if event.event == name]

    async def until(self, name: str, count: int = 1) -> Event:
        await eventually(lambda: len(self.told(name)) >= count)
        return self.told(name)[count - 1]


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110 - what happens in other processes sets no event here
            await asyncio.sleep(0.002)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    made = House()
    yield made
    for supervisor in reversed(made.supervisors):
        await supervisor.stop()


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    return eventually


@pytest.fixture
def runs() -> Callable[[int], bool]:
    """Whether a PID is a process that runs: not gone, and no zombie."""
    return lambda pid: start_time(pid) is not None


@pytest.fixture
def touched() -> Callable[[Path], Callable[[int], Awaitable[ProbeResult]]]:
    """A ready probe: the file is there."""

    def probe_of(path: Path) -> Callable[[int], Awaitable[ProbeResult]]:
        async def probe(pid: int) -> ProbeResult:
            return ProbeResult(os.path.exists(path), f"{path.name} is not there")  # noqa: ASYNC240

        return probe

    return probe_of
