"""The link to one engine: frames over a socketpair, end of file when either side is gone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import replace

from mlx_server import protocol
from mlx_server.gateway.engine_process.standby import Standby
from vestal.supervision import ChildSpec, ExitStatus, HandleWrapper, ProcessHandle, spawn
from vestal.supervision.processes.process_group import ProcessGroup

LAST_WORDS_S = 1.0
"""How long what a dead engine has sent may take to be read; it lies in the socket, so it takes no time."""


class EngineLink(asyncio.Protocol):
    """Cuts the stream into events. `on_lost` is called once, after the last event that the engine sent."""

    def __init__(
        self,
        on_event: Callable[[EngineLink, protocol.Event], None],
        on_lost: Callable[[EngineLink, str], None],
    ) -> None:
        self.pid = 0
        self.lost = asyncio.Event()
        self._on_event = on_event
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._frames = protocol.FrameBuffer()
        self._fault = ""

    def send(self, operation: protocol.Op) -> None:
        """Send `operation`; nothing happens if the engine is gone, as `on_lost` reports that.

        A request that no frame can carry fails as though the engine had refused it.
        """
        if self._transport is None or self._transport.is_closing():
            return
        try:
            frame = protocol.encode(operation)
        except protocol.ProtocolError as error:
            self._refuse(operation, error)
        else:
            self._transport.write(frame)

    def _refuse(self, operation: protocol.Op, error: protocol.ProtocolError) -> None:
        message = f"The request cannot be passed to the engine: {error}."
        failed = protocol.Failed(getattr(operation, "id", ""), "invalid_request", message)
        # Not at once: the sender has not finished noting that the request runs.
        asyncio.get_running_loop().call_soon(self._on_event, self, failed)

    def abort(self, fault: str) -> None:
        """Close the link, as though the engine had. The engine exits when it reads the end of file."""
        self._fault = self._fault or fault
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._frames.feed(data):
                self._on_event(self, protocol.decode_event(frame))
        except protocol.ProtocolError as error:
            self.abort(f"the engine sent what is no event: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        self._on_lost(self, self._fault or (str(exc) if exc else "end of file"))


class LinkedProcess(HandleWrapper):
    """An engine's process that counts as ended only when all it sent has been read."""

    def __init__(self, process: ProcessHandle, link: EngineLink) -> None:
        super().__init__(process)
        self._link = link

    async def wait(self) -> ExitStatus:
        status = await super().wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._link.lost.wait()
        self._link.abort("the engine has ended")
        return status

    def terminate(self) -> None:
        """What is in flight is not waited for: it goes on in the next engine, or was drained before."""
        self._link.send(protocol.Shutdown(drain_s=0))
        super().terminate()


class EngineLauncher:
    """Gives the supervisor an engine at one end of a socketpair: the spare that stands by, or a new one.

    A spare is a process with its imports done that has loaded nothing and touched no GPU.
    """

    def __init__(self, new_link: Callable[[], EngineLink]) -> None:
        self._new_link = new_link
        self._spare: Standby | None = None

    async def launch(self, spec: ChildSpec) -> ProcessHandle:
        spare, self._spare = self._spare, None
        began = spare is not None and spare.take()
        process, ours = (spare.process, spare.ours) if spare and began else await _start(spec)
        link = self._new_link()
        link.pid = process.pid
        await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
        if began:
            link.send(protocol.Begin())
        return LinkedProcess(process, link)

    async def prepare(self, spec: ChildSpec) -> None:
        """Has a spare stand by. Raises LaunchError."""
        if self._spare is None or not self._spare.alive:
            self._spare = Standby(*await _start(spec, "--spare"))

    async def discard(self) -> None:
        """Ends the spare."""
        spare, self._spare = self._spare, None
        if spare is not None:
            await spare.end()


async def _start(spec: ChildSpec, *more: str) -> tuple[ProcessGroup, socket.socket]:
    """Runs the command with `--fd N`; the process and our end."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = (*spec.command, "--fd", str(theirs.fileno()), *more)
        try:
            process = await spawn(replace(spec, command=command), pass_fds=(theirs.fileno(),))
        except BaseException:
            ours.close()
            raise
    ours.setblocking(False)
    return process, ours
