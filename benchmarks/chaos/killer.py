"""Kill the engine at random moments of the load, and record when and how."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks.chaos.killing import KILL_METHODS, choose, kill
from benchmarks.gateway_process import GatewayProcess

LOOK_S = 0.02
OOM_PATIENCE_S = 4.0
"""Seconds after which an engine that needed no new memory, and so did not die, gets SIGKILL."""
REPLACED_S = 90.0


@dataclass
class Death:
    """One kill, `at` in monotonic and `wall` in wall-clock time. The next engine served at `replaced_at`."""

    method: str
    pid: int
    at: float
    wall: float
    replaced_at: float = float("inf")


class Killer:
    """Kills the engine after random pauses; `deaths` are the kills so far.

    The next kill waits until the new engine serves, because a request fails by design if it makes no progress
    between three crashes.
    """

    def __init__(self, gateway: GatewayProcess, kills: int, seed: int, pause_s: tuple[float, float]) -> None:
        self.deaths: list[Death] = []
        self.unreplaced = 0
        self._gateway = gateway
        self._draw = random.Random(seed)
        self._methods = choose(kills, self._draw.random)
        self._pause_s = pause_s

    async def run(self) -> None:
        for method in self._methods:
            await asyncio.sleep(self._draw.uniform(*self._pause_s))
            pid = self._gateway.engine_pid()
            if pid is None or not await self._serving():
                self.unreplaced += 1
                return
            pid = self._gateway.engine_pid() or pid
            death = Death(method, pid, time.monotonic(), time.time())
            self.deaths.append(death)
            KILL_METHODS[method](pid)
            if not await self._replaced(method, pid):
                self.unreplaced += 1
                return
            death.replaced_at = time.monotonic()

    async def _serving(self) -> bool:
        """Wait for an engine with running requests; killing an idle one would test nothing."""
        return await self._until(
            lambda h: h["status"] == "ok" and h["requests"]["running"] > 0, REPLACED_S, every_s=0.05
        )

    async def _replaced(self, method: str, pid: int) -> bool:
        oom_until = time.monotonic() + OOM_PATIENCE_S
        end = time.monotonic() + REPLACED_S
        while time.monotonic() < end and _alive(pid):
            if method == "OOM" and time.monotonic() > oom_until:
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
