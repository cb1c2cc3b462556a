from __future__ import annotations

import asyncio

from vestal.supervision import FakeClock, next_tick


async def test_fake_clock_wakes_sleepers_in_the_order_they_are_due():
    clock, woken = FakeClock(), []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.now()))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sleeper("b", 2))
        tasks.create_task(sleeper("a", 1))
        await clock.run_for(1.5)
        assert woken == [("a", 1)]
        await clock.run_for(1)
    assert woken == [("a", 1), ("b", 2)]
    assert clock.now() == 2.5


async def test_fake_clock_run_for_wakes_a_loop_each_time_it_is_due():
    clock, ticks = FakeClock(), []

    async def loop() -> None:
        while True:
            await clock.sleep(10)
            ticks.append(clock.now())

    task = asyncio.create_task(loop())
    await clock.run_for(35)
    assert ticks == [10, 20, 30]
    task.cancel()


async def test_next_tick_wakes_all_loops_at_the_same_multiple_of_the_interval():
    clock, ticks = FakeClock(now=0.3), []

    async def loop(begins_at: float) -> None:
        await clock.sleep(begins_at)
        while True:
            await next_tick(clock, 1.0)
            ticks.append(clock.now())

    tasks = [asyncio.create_task(loop(begins_at)) for begins_at in (0.1, 0.4)]
    await clock.run_for(2.2)
    assert ticks == [1, 1, 2, 2]
    for task in tasks:
        task.cancel()
