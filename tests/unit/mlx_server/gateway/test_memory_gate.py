"""An engine is started where the machine's memory allows it, and not before."""

from __future__ import annotations

import asyncio

import pytest

from mlx_server.gateway.engine_process.memory_gate import WITHIN_S, MemoryGate
from vestal.platform.memory_headroom import Headroom
from vestal.supervision import FakeClock, LaunchError

STRANDED = Headroom("80% of the machine's memory is wired down", needs_reboot=True)


async def test_machine_with_room_is_not_waited_for():
    await MemoryGate(Headroom, FakeClock())()


async def test_memory_that_comes_back_late_is_waited_for():
    clock, found = FakeClock(), [STRANDED] * 8 + [Headroom()]
    start = asyncio.create_task(MemoryGate(lambda: found.pop(0), clock)())
    await clock.run_for(1)
    assert not start.done()
    await clock.run_for(2)
    await start
    assert not found


async def test_memory_that_stays_away_is_said_and_nothing_started():
    clock = FakeClock()
    start = asyncio.create_task(MemoryGate(lambda: STRANDED, clock)())
    await clock.run_for(WITHIN_S + 1)
    with pytest.raises(LaunchError, match="only a reboot frees it"):
        await start
