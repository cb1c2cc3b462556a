"""Real child processes, and supervisors that leave none of them behind."""

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
DEADLINE_S = 30.0
QUICK = RestartPolicy(
    backoff=Backoff(0.05, 0.2),
    start_timeout_s=DEADLINE_S,
    stop_timeout_s=0.3,
    stable_after_s=0,
    probe=ProbePolicy(interval_s=0.05, timeout_s=0.2, failures=2),
)


class MakeSpec(Protocol):
    def __call__(self, program: str, *args: object, name: str = "child", **fields: Any) -> ChildSpec: ...


@pytest.fixture
def spec() -> MakeSpec:
    """A function that makes the spec of a program in tests/children; `policy` changes the quick policy."""

    def make(program: str, *args: object, name: str = "child", **fields: Any) -> ChildSpec:
        command = (sys.executable, "-I", "-S", str(PROGRAMS / program), *map(str, args))
        policy = replace(QUICK, **fields.pop("policy", {}))
        return ChildSpec(name, command, policy=policy, **fields)

    return make


class Supervisors:
    """The supervisors of one test, and the events of all of them."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.made: list[Supervisor] = []

    def make(self, *specs: ChildSpec, **options: Any) -> Supervisor:
        """Make a supervisor, which is stopped at the end of the test."""
        supervisor = Supervisor(specs, on_event=self.events.append, **options)
        self.made.append(supervisor)
        return supervisor

    async def up(self, *specs: ChildSpec, **options: Any) -> Supervisor:
        """Make and start a supervisor, and wait until every child is ready."""
        supervisor = self.make(*specs, **options)
        await supervisor.start()
        for spec in specs:
            await supervisor.wait_for(spec.name, {State.READY}, DEADLINE_S)
        return supervisor

    def events_named(self, name: str) -> list[Event]:
        """Return the events of this name so far."""
        return [event for event in self.events if event.event == name]

    async def wait_for_event(self, name: str, count: int = 1) -> Event:
        """Wait for the `count`-th event of this name, and return it."""
        await eventually(lambda: len(self.events_named(name)) >= count)
        return self.events_named(name)[count - 1]


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until the condition holds; fail after a deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110 - what happens in other processes sets no event here
            await asyncio.sleep(0.002)


@pytest.fixture
async def supervisors() -> AsyncIterator[Supervisors]:
    made = Supervisors()
    yield made
    for supervisor in reversed(made.made):
        await supervisor.stop()


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    return eventually


@pytest.fixture
def is_running() -> Callable[[int], bool]:
    """A function that returns whether a PID belongs to a process that is not a zombie."""
    return lambda pid: start_time(pid) is not None


@pytest.fixture
def file_probe() -> Callable[[Path], Callable[[int], Awaitable[ProbeResult]]]:
    """A function that returns a probe, which succeeds once the given file exists."""

    def probe_of(path: Path) -> Callable[[int], Awaitable[ProbeResult]]:
        async def probe(pid: int) -> ProbeResult:
            return ProbeResult(os.path.exists(path), f"{path.name} is not there")  # noqa: ASYNC240

        return probe

    return probe_of
