"""Start the program of the template process, and exchange messages (frames) with it over a socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from mlx_server.engine.generation.prompts.templates import renderer
from mlx_server.engine.generation.prompts.templates.limits import (
    TemplateError,
    TemplateLimits,
    TemplateProcessDied,
    out_of_memory,
    too_slow,
)

START_S = 20.0
"""How long the program may take to start. It takes 0.1 s on a machine that is not overloaded."""
_LOOK_EVERY_S = 0.02
"""How often the program's memory is read while it renders. Most templates are rendered in less time."""
_ALARM_LATER_S = 1.0
"""How long after the time limit the program ends itself. It only does so if the engine has died, because the
engine would have ended it earlier.
"""
_EXIT_S = 1.0
_READ_BYTES = 1024 * 1024
_VARIABLES = ("TZ", "LANG", "LC_ALL", "LC_TIME", "PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""The environment variables that the program inherits from the engine. The others may hold secrets."""

ResidentBytes = Callable[[int], int]


def resident_bytes(pid: int) -> int:
    """Return the resident memory of process `pid`, in bytes; 0 if the process has ended, or if the memory
    cannot be read because no file descriptor is free.
    """
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except (psutil.Error, OSError):
        return 0


class TemplateChild:
    """A running template process (`renderer.py`), and the socket to it.

    If a rendering takes more time or memory than `limits` allow, `ask` raises an error, and the caller must
    close this object, which kills the process. `resident_bytes` returns the resident memory of the process
    with a given PID.

    While a thread is in `ask`, other threads may only call `kill`. The constructor raises TemplateProcessDied
    if the process cannot be started.
    """

    def __init__(self, limits: TemplateLimits, resident_bytes: ResidentBytes = resident_bytes) -> None:
        self._limits, self._resident_bytes = limits, resident_bytes
        try:
            self._process, self._socket = _start(limits)
        except OSError as error:  # for example, because no file descriptor is free
            raise TemplateProcessDied(f"it could not be started: {error}") from error
        self._received = bytearray()
        self._idle_bytes: int | None = None  # the program's resident memory, once it is ready

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill the template process, and wait until it has ended."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Kill the template process, wait until it has ended, and close the socket to it."""
        self.kill()
        self._socket.close()

    def ask(self, request: bytes) -> bytes:
        """Send `request` to the template process, and return its reply. Wait for the process first if it is
        still starting.

        Raises TemplateError if the process exceeds its limits, does not start, or ends. The caller must then
        call `close`.
        """
        idle_bytes = self._wait_until_ready() if self._idle_bytes is None else self._idle_bytes
        until_s = time.monotonic() + self._limits.seconds
        self._send(request, until_s)
        while (reply := self._receive(min(time.monotonic() + _LOOK_EVERY_S, until_s))) is None:
            if time.monotonic() >= until_s:
                raise too_slow(self._limits)
            if self._resident_bytes(self.pid) - idle_bytes > self._limits.memory_bytes:
                raise out_of_memory(self._limits)
        return reply

    def _wait_until_ready(self) -> int:
        if self._receive(time.monotonic() + START_S) is None:
            raise TemplateProcessDied(f"it was not ready within {START_S:.0f} s")
        self._idle_bytes = self._resident_bytes(self.pid)
        return self._idle_bytes

    def _send(self, request: bytes, until_s: float) -> None:
        header = len(request).to_bytes(renderer.LENGTH_BYTES, "big")
        self._socket.settimeout(max(until_s - time.monotonic(), _LOOK_EVERY_S))
        try:
            self._socket.sendall(header + request)
        except TimeoutError as error:
            raise too_slow(self._limits) from error
        except OSError as error:
            raise self._cause_of_end() from error

    def _receive(self, until_s: float) -> bytes | None:
        """Return the next frame that the template process sends; None if the frame is incomplete at `until_s`
        (in seconds of `time.monotonic`).

        Raises TemplateError if the process has ended.
        """
        while (frame := self._take_frame()) is None:
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return None
            self._socket.settimeout(left_s)
            try:
                data = self._socket.recv(_READ_BYTES)
            except TimeoutError:
                return None
            except OSError as error:
                raise self._cause_of_end() from error
            if not data:
                raise self._cause_of_end()
            self._received += data
        return frame

    def _take_frame(self) -> bytes | None:
        start = renderer.LENGTH_BYTES
        if len(self._received) < start:
            return None
        end = start + int.from_bytes(self._received[:start], "big")
        if len(self._received) < end:
            return None
        frame = bytes(self._received[start:end])
        del self._received[:end]
        return frame

    def _cause_of_end(self) -> TemplateError:
        """Wait until the template process, which has closed its end of the socket, has exited. Return an
        error that says why it has ended.
        """
        try:
            code = self._process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            return TemplateProcessDied("it closed its socket")
        if code == -signal.SIGALRM:
            return too_slow(self._limits)
        how = f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"its exit code was {code}"
        return TemplateProcessDied(how)


def _start(limits: TemplateLimits) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start the template process, a Python process that runs `renderer.py` and also enforces `limits` itself.
    Return the process, and the engine's end of the socket to it. Raises OSError if that fails; no socket is
    then left open.
    """
    memory_bytes = limits.memory_bytes if limits.kernel_enforces_memory else 0
    arguments = [limits.seconds + _ALARM_LATER_S, memory_bytes, limits.chars]
    program = str(Path(renderer.__file__).resolve())
    ours, theirs = socket.socketpair()
    try:
        # With `close_fds=False` Python uses posix_spawn, which copies no page tables of the engine. The
        # program itself closes the files that it inherits, and Python opens all files as not inheritable.
        process = subprocess.Popen(
            [sys.executable, "-I", program, *map(str, arguments)],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            close_fds=False,
            env={name: os.environ[name] for name in _VARIABLES if name in os.environ},
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return process, ours
