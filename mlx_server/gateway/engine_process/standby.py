"""An engine that stands by: alive, its imports done, nothing loaded. It ends when its socket closes."""

from __future__ import annotations

import asyncio
import socket

from vestal.supervision import ExitStatus
from vestal.supervision.processes.process_group import ProcessGroup


class Standby:
    """Owner of the process until it is taken. One that dies is reaped at once, and of no use."""

    def __init__(self, process: ProcessGroup, ours: socket.socket) -> None:
        self.process = process
        self.ours = ours
        self._exit: asyncio.Task[ExitStatus] = asyncio.ensure_future(process.wait())

    @property
    def alive(self) -> bool:
        return not self._exit.done()

    def take(self) -> bool:
        """Gives it away; False where it is dead. Its exit is the taker's to see from now on."""
        if not self.alive:
            self.ours.close()
            return False
        self._exit.cancel()
        return True

    async def end(self) -> None:
        """Nothing in it is worth an orderly end."""
        self.process.kill()
        await self._exit
        self.ours.close()
