"""Kill and upgrade the stack at random moments of the load, and record when and how."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.chaos.disturbances import AGENT, ENGINE, GATEWAY, TOGETHER, UPGRADE, Disturbance
from benchmarks.chaos.killing import KILL_METHODS
from benchmarks.chaos.pauses import Death, Deaths
from benchmarks.chaos.tally import Tally
from benchmarks.processes.stack import StackProcess, is_alive

LOOK_S = 0.02
OOM_PATIENCE_S = 4.0
"""After this many seconds, an engine that needed no new memory, and therefore did not die, gets SIGKILL."""
AGENT_PATIENCE_S = 3.0
"""After this many seconds, a dead agent is started here, as launchd and systemd would, because the watchdog
starts it at most five times within five minutes.
"""
REPLACED_S = 90.0
PROGRESS_S = (0.3, 2.0)
"""The range of the pause, in seconds, before the next disturbance. Without it, a request might make no
progress between crashes, and such a request fails by design.
"""
PROCESSES = {
    ENGINE: ("mlx_engine",),
    GATEWAY: ("mlx_server",),
    AGENT: ("agent",),
    TOGETHER: ("agent", "mlx_server", "mlx_engine"),
}


class Disturber:
    """Carries out a plan of kills and upgrades, and counts their effects in `tally`.

    In a resumed run, it begins after the disturbances that the tally has already counted. Before each
    disturbance it waits until `is_due` returns True for the disturbance's number (from 0), then for a random
    time, drawn from `seed`, and then until the stack serves. The time of each disturbance, and the time at
    which the stack served again, are stored in `deaths`.
    """

    def __init__(
        self,
        stack: StackProcess,
        plan: Sequence[Disturbance],
        is_due: Callable[[int], bool],
        tally: Tally,
        deaths: Deaths,
        seed: int,
    ) -> None:
        self._stack, self._plan, self._is_due = stack, plan, is_due
        self._tally, self._deaths = tally, deaths
        self._draw = random.Random(f"{seed} {tally.done}")

    async def run(self) -> None:
        """Carry out the disturbances of the plan that the tally has not counted yet.

        Before each disturbance, wait up to REPLACED_S seconds until the stack serves and requests are
        running. If this does not happen, leave the disturbance out. In that case, and if the stack does not
        serve in time after a kill, print a line, count the disturbance as one without effect, and continue
        with the next one.
        """
        for number in range(self._tally.done, len(self._plan)):
            while not self._is_due(number):  # noqa: ASYNC110 - it depends on the load
                await asyncio.sleep(LOOK_S)
            await asyncio.sleep(self._draw.uniform(*PROGRESS_S))
            planned = self._plan[number]
            act = self._upgrade if planned.what == UPGRADE else self._kill
            served = await self._until_serving()
            began = time.monotonic()
            worked = served and await act(planned, number)
            counted = self._tally.of(planned.cause)
            counted.count += 1
            counted.without_effect += not worked
            if not served or not (worked or planned.what == UPGRADE):
                print(f"{planned.cause}: the stack did not serve within {time.monotonic() - began:.0f} s")

    async def _kill(self, planned: Disturbance, number: int) -> bool:
        names = PROCESSES[planned.what]
        pids = {name: self._stack.pid(name) for name in names}
        death = Death(planned.cause, time.monotonic())
        self._deaths.add(death)
        for pid in pids.values():
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    KILL_METHODS[planned.method](pid)
        worked = all(pids.values()) and await self._replaced(planned, pids)
        death.replaced_at = time.monotonic()
        return worked

    async def _upgrade(self, planned: Disturbance, number: int) -> bool:
        """Change the stack's copy of the code and run `vestal up`. Return whether the stack serves afterwards
        with a new gateway process.

        `number`, the disturbance's number, decides which package is changed.
        """
        before = self._stack.pid("mlx_server")
        death = Death(planned.cause, time.monotonic())
        self._deaths.add(death)
        self._stack.change_code(number)
        try:
            await asyncio.to_thread(self._stack.up)
        except Exception as error:
            print(f"upgrade: {error}", flush=True)
        served = await self._until(lambda health: health["status"] == "ok", REPLACED_S)
        death.replaced_at = time.monotonic()
        return served and self._stack.pid("mlx_server") != before

    async def _until_serving(self) -> bool:
        """Wait until gateway, engine and agent serve and requests are running, because killing an idle stack
        would test nothing. Return whether this happens in time.
        """
        return await self._until(
            lambda h: h["status"] == "ok" and h["requests"]["running"] > 0 and self._stack.agent_answers(),
            REPLACED_S,
            every_s=0.05,
        )

    async def _replaced(self, planned: Disturbance, pids: dict[str, int | None]) -> bool:
        began, recovering = time.monotonic(), None
        while time.monotonic() < began + REPLACED_S and any(pid and is_alive(pid) for pid in pids.values()):
            if planned.method == "OOM" and time.monotonic() > began + OOM_PATIENCE_S:
                for pid in filter(None, pids.values()):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(LOOK_S)
        if "agent" in pids:
            recovering = asyncio.ensure_future(self._start_agent())
        try:
            return await self._until(
                lambda health: (
                    health["status"] == "ok"
                    and all(self._stack.pid(name) not in (None, pid) for name, pid in pids.items())
                    and ("agent" not in pids or self._stack.agent_answers())
                ),
                REPLACED_S,
            )
        finally:
            if recovering is not None:
                await recovering

    async def _start_agent(self) -> None:
        """Wait for AGENT_PATIENCE_S seconds, and start the agent if nothing else has started it."""
        end = time.monotonic() + AGENT_PATIENCE_S
        while time.monotonic() < end:
            if self._stack.pid("agent") is not None:
                return
            await asyncio.sleep(LOOK_S)
        await asyncio.to_thread(self._stack.recover)

    async def _until(
        self, condition: Callable[[dict[str, Any]], bool], timeout_s: float, every_s: float = 0.1
    ) -> bool:
        def holds() -> bool:
            with contextlib.suppress(OSError, ValueError):
                return condition(self._stack.health())
            return False

        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if await asyncio.to_thread(holds):
                return True
            await asyncio.sleep(every_s)
        return False
