"""Kills the engine at random moments of the load, and notes when and how."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks.chaos.killing import WAYS, choose, kill
from benchmarks.gateway_process import GatewayProcess

LOOK_S = 0.02
OOM_PATIENCE_S = 4.0
"""An engine that needs no new memory for so long does not die of the lack; then the kernel's own way."""
REPLACED_S = 90.0


@dataclass
class Death:
    """`at` is monotonic, `wall` the same by the wall clock; the next engine served at `replaced_at`."""

    way: str
    pid: int
    at: float
    wall: float
    replaced_at: float = float("inf")


class Killer:
    """`deaths` are those brought about so far. A kill comes when its share of the load is done, never sooner
    than the engine before it serves: a request that is in three crashes at one place is refused by design."""

    def __init__(self, gateway: GatewayProcess, kills: int, seed: int, pause_s: tuple[float, float]) -> None:
        self.deaths: list[Death] = []
        self.unreplaced = 0
        self._gateway = gateway
        self._draw = random.Random(seed)
        self._ways = choose(kills, self._draw.random)
        self._pause_s = pause_s

    async def run(self) -> None:
        for way in self._ways:
            await asyncio.sleep(self._draw.uniform(*self._pause_s))
            pid = self._gateway.engine_pid()
            if pid is None or not await self._serving():
                self.unreplaced += 1
                return
            pid = self._gateway.engine_pid() or pid
            death = Death(way, pid, time.monotonic(), time.time())
            self.deaths.append(death)
            WAYS[way](pid)
            if not await self._replaced(way, pid):
                self.unreplaced += 1
                return
            death.replaced_at = time.monotonic()

    async def _serving(self) -> bool:
        """Waits for an engine that has work; a kill of an idle one would show nothing."""
        return await self._until(
            lambda h: h["status"] == "ok" and h["requests"]["running"] > 0, REPLACED_S, every_s=0.05
        )

    async def _replaced(self, way: str, pid: int) -> bool:
        oom_until = time.monotonic() + OOM_PATIENCE_S
        end = time.monotonic() + REPLACED_S
        while time.monotonic() < end and _alive(pid):
            if way == "OOM" and time.monotonic() > oom_until:
                with contextlib.suppress(ProcessLookupError):
                    kill(pid)
            await asyncio.sleep(LOOK_S)
        return await self._until(lambda h: h["status"] == "ok" and h["engine"]["pid"] != pid, REPLACED_S)

    async def _until(
        self, condition: Callable[[dict[str, Any]], bool], timeout_s: float, every_s: float = 0.1
    ) -> bool:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            with contextlib.suppress(OSError, ValueError):
                if condition(await asyncio.to_thread(self._gateway.health)):
                    return True
            await asyncio.sleep(every_s)
        return False


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
