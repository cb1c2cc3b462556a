"""The gate of a task's steps admits as many as the memory allows, in the order of their requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from orchestrator.memory_guard import MAX_HOLD_S
from orchestrator.tasks.step_gate import StepGate


@dataclass
class World:
    """Memory and time that the test sets, and steps that end when the test says so."""

    memory: float = 0.0
    now: float = 0.0
    begun: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    ends: dict[str, asyncio.Event] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.looks = 0
        self.gate = StepGate(4, self._look, lambda: self.now, poll_s=0.001)

    def _look(self) -> float:
        self.looks += 1
        return self.memory

    def ask(self, name: str) -> asyncio.Task[None]:
        self.ends[name] = asyncio.Event()
        return asyncio.create_task(self._step(name))

    async def _step(self, name: str) -> None:
        async with self.gate.turn(self.said.append):
            self.begun.append(name)
            await self.ends[name].wait()

    async def until_begun(self, *names: str) -> None:
        await until(lambda: self.begun == list(names))

    async def looked_again(self) -> None:
        """Wait until the gate has read the memory several times."""
        seen = self.looks
        await until(lambda: self.looks > seen + 8)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("not within 10 s")


@pytest.fixture
async def world() -> World:
    return World()


async def finish(world: World, *steps: asyncio.Task[None]) -> None:
    for end in world.ends.values():
        end.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*steps)
    assert world.gate.running == 0


async def test_task_steps_with_free_memory_begin_at_once_and_report_nothing(world: World):
    steps = [world.ask(name) for name in "abcdef"]
    await world.until_begun(*"abcdef")
    assert world.said == []
    await finish(world, *steps)


async def test_task_steps_at_80_percent_memory_use_run_two_at_a_time_in_order(world: World):
    world.memory = 0.80
    steps = [world.ask(name) for name in "abcd"]
    await world.until_begun("a", "b")
    await world.looked_again()
    assert world.begun == ["a", "b"]
    world.ends["a"].set()
    await world.until_begun("a", "b", "c")
    await finish(world, *steps)
    assert world.begun == ["a", "b", "c", "d"]


async def test_task_step_waits_while_memory_use_is_at_least_90_percent(world: World):
    world.memory = 0.93
    step = world.ask("a")
    await world.looked_again()
    assert world.begun == []
    assert world.said == ["waiting: memory is at 93% of the limit, 0 step(s) running"]
    world.memory = 0.5
    await world.until_begun("a")
    assert world.said[-1] == ""
    await finish(world, step)


async def test_task_steps_without_free_memory_for_too_long_begin_one_at_a_time(world: World):
    world.memory = 0.99
    steps = [world.ask("a"), world.ask("b")]
    await world.looked_again()
    world.now += MAX_HOLD_S
    await world.until_begun("a")
    await world.looked_again()
    assert world.begun == ["a"]
    world.ends["a"].set()
    await world.until_begun("a", "b")
    await finish(world, *steps)


async def test_task_step_cancelled_while_waiting_lets_the_next_one_begin(world: World):
    world.memory = 0.99
    first, second = world.ask("a"), world.ask("b")
    await world.looked_again()
    first.cancel()
    world.memory = 0.1
    await world.until_begun("b")
    await finish(world, second)
