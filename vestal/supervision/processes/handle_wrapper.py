"""A ProcessHandle around another: for launchers whose processes differ in one thing or two."""

from __future__ import annotations

from vestal.supervision.child_spec import ProcessHandle
from vestal.supervision.lifecycle.states import ExitStatus


class HandleWrapper:
    """Passes everything on to `process`; a kind of its own overrides what it does otherwise."""

    def __init__(self, process: ProcessHandle) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def start_time(self) -> float:
        return self._process.start_time

    async def wait(self) -> ExitStatus:
        return await self._process.wait()

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def detach(self) -> None:
        self._process.detach()
