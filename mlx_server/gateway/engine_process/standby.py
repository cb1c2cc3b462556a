"""The standby engine: a process that has done its imports, but has not loaded a model or used the GPU.

When the engine dies, the standby engine takes over at once, which saves the second that the imports take.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from mlx_server.gateway.telemetry import Telemetry
from vestal.supervision import Clock, ExitStatus, ProcessGroup, SupervisionError

EARLIEST_AFTER_S, LATEST_AFTER_S = 2.0, 20.0
"""A standby engine is started in the first idle moment at least EARLIEST_AFTER_S after an engine became
ready, and after LATEST_AFTER_S in any case. It waits for an idle moment because its imports occupy a core for
a second, which running requests need more."""
IDLE_POLL_S = 0.5


class StandbyEngine:
    """One standby process. If it dies, it is reaped at once. It exits by itself when `our_end`, the gateway's
    end of its socketpair, is closed.
    """

    def __init__(self, process: ProcessGroup, our_end: socket.socket) -> None:
        self.process = process
        self.our_end = our_end
        self._exit: asyncio.Task[ExitStatus] = asyncio.ensure_future(process.wait())

    @property
    def alive(self) -> bool:
        return not self._exit.done()

    @property
    def exit_code(self) -> int | None:
        """Return the exit code of the process if it has exited by itself; else None."""
        return self._exit.result().code if self._exit.done() and not self._exit.cancelled() else None

    def take(self) -> bool:
        """Pass the process and `our_end`, the gateway's end of its socketpair, on to the caller, and return
        True. From then on, the caller must close `our_end`, and must reap the process when it exits. If the
        process is dead already, close `our_end` and return False.
        """
        if not self.alive:
            self.our_end.close()
            return False
        self._exit.cancel()
        return True

    async def kill(self) -> None:
        """Kill the process, which has no state to save, and wait until it is reaped."""
        self.process.kill()
        await self._exit
        self.our_end.close()


class StandbyPreparation:
    """Calls `prepare`, which starts a standby engine, a few seconds after an engine became ready. While
    `is_busy` returns True (requests are running), the call is put off, but at most until LATEST_AFTER_S.
    """

    def __init__(
        self,
        prepare: Callable[[], Awaitable[None]],
        is_busy: Callable[[], bool],
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._prepare = prepare
        self._is_busy = is_busy
        self._clock = clock
        self._telemetry = telemetry
        self._task: asyncio.Task[None] | None = None

    def engine_ready(self) -> None:
        """Begin the preparation unless one is in progress."""
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        """Cancel a preparation that is in progress."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        latest = self._clock.now() + LATEST_AFTER_S
        await self._clock.sleep(EARLIEST_AFTER_S)
        while self._is_busy() and self._clock.now() < latest:
            await self._clock.sleep(IDLE_POLL_S)
        try:
            await self._prepare()
        except (SupervisionError, OSError) as error:  # the next start then takes a second longer
            self._telemetry.emit("spare_not_started", str(error))
