"""Launch engines for the supervisor, each at one end of a socketpair."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import replace

from mlx_server import protocol
from mlx_server.gateway.engine_process.link import EngineLink
from mlx_server.gateway.engine_process.standby import StandbyEngine
from vestal.supervision import ChildSpec, ExitStatus, HandleWrapper, ProcessGroup, ProcessHandle, spawn

READ_REST_S = 1.0
"""The longest wait for the last events of a dead engine, which are already in the socket's buffer."""


class EngineLauncher:
    """Launches engines: the standby engine if there is one, else a new process. `new_link` makes the link to
    an engine from the engine's PID.
    """

    def __init__(self, new_link: Callable[[int], EngineLink]) -> None:
        self._new_link = new_link
        self._standby: StandbyEngine | None = None

    async def launch(self, spec: ChildSpec) -> ProcessHandle:
        """Return a running engine that is connected to a new link. Raises LaunchError or OSError if no
        process can be started.
        """
        standby, self._standby = self._standby, None
        from_standby = standby is not None and standby.take()
        if standby is not None and from_standby:
            process, our_end = standby.process, standby.our_end
        else:
            process, our_end = await _start_process(spec)
        link = self._new_link(process.pid)
        await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=our_end)
        if from_standby:
            link.send(protocol.Begin())
        return LinkedProcess(process, link)

    @property
    def standby_exit_code(self) -> int | None:
        """Return the exit code of a standby engine that has exited by itself; None if there is none."""
        return self._standby.exit_code if self._standby is not None else None

    async def prepare_standby(self, spec: ChildSpec) -> None:
        """Start a standby engine unless one is alive. Raises LaunchError or OSError if no process can be
        started.
        """
        if self._standby is None or not self._standby.alive:
            self._standby = StandbyEngine(*await _start_process(spec, "--standby"))

    async def discard_standby(self) -> None:
        """Kill the standby engine, if there is one."""
        standby, self._standby = self._standby, None
        if standby is not None:
            await standby.kill()


class LinkedProcess(HandleWrapper):
    """An engine process that counts as exited only when everything that it sent has been read. `wait` waits
    up to READ_REST_S for that.
    """

    def __init__(self, process: ProcessHandle, link: EngineLink) -> None:
        super().__init__(process)
        self._link = link

    async def wait(self) -> ExitStatus:
        status = await super().wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READ_REST_S):
                await self._link.lost.wait()
        self._link.abort("the engine has exited")
        return status

    def terminate(self) -> None:
        """Ask the engine to shut down without finishing its requests, and send SIGTERM.

        The requests continue in the next engine. If the gateway itself stops, it has already waited for them.
        """
        self._link.send(protocol.Shutdown(drain_s=0))
        super().terminate()


async def _start_process(spec: ChildSpec, *arguments: str) -> tuple[ProcessGroup, socket.socket]:
    """Run the spec's command with the options `--fd N` and `arguments` added. N is the file descriptor of the
    process's end of a new socketpair. Return the process and the gateway's end of the socketpair. Raises
    LaunchError or OSError if the process or the socketpair cannot be created.
    """
    our_end, engine_end = socket.socketpair()
    with engine_end:
        command = (*spec.command, "--fd", str(engine_end.fileno()), *arguments)
        try:
            process = await spawn(replace(spec, command=command), pass_fds=(engine_end.fileno(),))
        except BaseException:
            our_end.close()
            raise
    our_end.setblocking(False)
    return process, our_end
