"""The memory gate: an engine is launched only when the machine's memory allows it."""

from __future__ import annotations

import asyncio

import pytest

from mlx_server.gateway.engine_process.memory_gate import TIMEOUT_S, MemoryGate
from vestal.platform.memory_headroom import Headroom
from vestal.supervision import FakeClock, LaunchError

STRANDED = Headroom("80% of the machine's memory is wired down", needs_reboot=True)


async def test_engine_launch_with_enough_memory_is_allowed_at_once():
    await MemoryGate(Headroom, FakeClock())()


async def test_engine_launch_is_allowed_when_memory_becomes_free_in_time():
    clock, readings = FakeClock(), [STRANDED] * 8 + [Headroom()]
    gate = asyncio.create_task(MemoryGate(lambda: readings.pop(0), clock)())
    await clock.run_for(1)
    assert not gate.done()
    await clock.run_for(2)
    await gate
    assert not readings


async def test_engine_launch_is_refused_with_a_remedy_when_memory_does_not_become_free():
    clock = FakeClock()
    gate = asyncio.create_task(MemoryGate(lambda: STRANDED, clock)())
    await clock.run_for(TIMEOUT_S + 1)
    with pytest.raises(LaunchError, match="only a reboot frees it"):
        await gate
