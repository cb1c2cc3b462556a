"""The engine's main thread: asyncio code between the gateway's socket and the MLX thread. It never uses MLX.

It reports to the gateway while the MLX thread works: `hello` before MLX is imported, then `alive` each
second. End of file on the socket means that the gateway has ended. The engine then shuts down, so that no
engine outlives its gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import importlib.metadata
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

from mlx_server import VERSION
from mlx_server.engine import mlx_thread
from mlx_server.engine.log import log_event
from mlx_server.engine.request_spans import EngineSpans
from mlx_server.engine.status import Status
from mlx_server.protocol import (
    Begin,
    Cancel,
    Event,
    Failed,
    FrameBuffer,
    Generate,
    Hello,
    Op,
    ProtocolError,
    Shutdown,
    decode_op,
    encode,
)
from vestal.config import Config
from vestal.tracing import open_tracer

ALIVE_INTERVAL_S = 1.0
_FLUSH_S = 2.0
"""How many seconds the gateway may take to read the last events."""
_READ_BYTES = 256 * 1024
YIELD_S = 1e-5
"""How long the MLX thread sleeps after it has handed over events, so that the main thread sends them at once.
With two cores, the main thread would often get none before the MLX thread has prepared its next step, 1 to
5 ms later. MLX meanwhile computes a step that was prepared before."""
_STAGES_S = 30.0
"""How many seconds a shutdown may take after the drain. After that time, the process exits at once."""


def frame_of(event: Event, take: Callable[[Op], None]) -> bytes:
    """Encode `event` as a frame of the protocol between engine and gateway.

    If the event cannot be encoded, for example because it is too large, return a frame that fails the event's
    request instead, and call `take` with an operation that cancels this request. Raises ProtocolError if the
    event cannot be encoded and belongs to no request.
    """
    try:
        return encode(event)
    except ProtocolError as error:
        request = getattr(event, "id", None)
        if request is None:
            raise
        log_event("event_not_sent", cause=str(error), id=request)
        take(Cancel(request))
        return encode(Failed(request, "internal_error", f"The answer cannot be passed on: {error}."))


class Link:
    """Connects the engine to the gateway over the socket `fd`. `blas` is the name of the BLAS library, which
    the event `hello` reports.

    A `standby` engine imports MLX, but neither serves nor sends anything before the gateway sends the
    operation `Begin`.
    """

    def __init__(self, fd: int, config: Config, blas: str, *, standby: bool = False) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        os.set_inheritable(fd, False)  # MLX starts a compiler on Linux, which must not keep the socket open
        self._config, self._blas = config, blas
        self._inbox: queue.SimpleQueue[Op | None] = queue.SimpleQueue()
        self._checks: queue.SimpleQueue[Generate] = queue.SimpleQueue()
        self._status = Status()
        self._stopping = False
        self._tracer = open_tracer(
            "vestal-engine", lambda sentence: log_event("tracing_failed", cause=sentence)
        )
        self._spans = EngineSpans(self._tracer) if self._tracer else None
        self._may_serve = threading.Event()  # the MLX thread of a standby waits for this after its imports
        self._may_report = asyncio.Event()
        if not standby:
            self._may_serve.set()
            self._may_report.set()

    async def run(self) -> int:
        """Serve until an operation, a signal or the end of the gateway stops the engine. Return the exit
        code.
        """
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection(sock=self._socket)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_by_signal, signal.Signals(number).name)
        ended = asyncio.Event()
        self._start_thread(loop, writer, ended)
        tasks = [
            asyncio.create_task(self._read(reader)),
            asyncio.create_task(self._report(writer)),
        ]
        await ended.wait()
        for task in tasks:
            task.cancel()
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(writer.drain(), _FLUSH_S)
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(writer.wait_closed(), _FLUSH_S)
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)
        return 0

    def _start_thread(
        self, loop: asyncio.AbstractEventLoop, writer: asyncio.StreamWriter, ended: asyncio.Event
    ) -> None:
        def emit(events: list[Event]) -> None:
            loop.call_soon_threadsafe(
                writer.write, b"".join(frame_of(event, self._inbox.put) for event in events)
            )
            if self._spans is not None:
                loop.call_soon_threadsafe(self._trace, self._spans, events)
            time.sleep(YIELD_S)

        def run_mlx_thread() -> None:
            mlx_thread.run(self._config, self._inbox, self._checks, emit, self._status, self._may_serve)
            loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=run_mlx_thread, name="mlx", daemon=True).start()

    def _trace(self, spans: EngineSpans, events: list[Event]) -> None:
        for event in events:
            spans.sent(event)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Pass operations to the MLX thread until the gateway has closed the socket, then shut down."""
        cause = "the gateway closed the link"
        frames = FrameBuffer()
        try:
            while data := await reader.read(_READ_BYTES):
                for frame in frames.feed(data):
                    self._receive(decode_op(frame))
        except (ProtocolError, OSError) as error:
            cause = f"the link broke: {error}"
        # The gateway has ended, so nobody would read the answers that a drain finishes.
        self._stop(cause, drain_s=0.0)

    def _receive(self, op: Op) -> None:
        if isinstance(op, Shutdown):
            self._stop("the gateway asked for it", op.drain_s)
        elif isinstance(op, Begin):
            self._may_serve.set()
            self._may_report.set()
        elif isinstance(op, Generate) and op.check_only:
            self._checks.put(op)  # not through the MLX thread, which may be in a long step
        else:
            if self._spans is not None:
                self._spans.received(op)
            self._inbox.put(op)

    def _stop_by_signal(self, name: str) -> None:
        """Begin to shut down because of the signal `name`. Running requests may finish within the configured
        time, unless this is a second signal: then the gateway resumes them in another engine.
        """
        self._stop(name, drain_s=0.0 if self._stopping else None)

    def _stop(self, cause: str, drain_s: float | None = None) -> None:
        log_event("shutdown_asked", cause=cause)
        self._inbox.put(Shutdown(drain_s))
        self._may_serve.set()
        if not self._stopping:
            self._stopping = True
            limit_s = (self._config.mlx.drain_s if drain_s is None else drain_s) + _STAGES_S
            asyncio.get_running_loop().call_later(limit_s, self._give_up)

    async def _report(self, writer: asyncio.StreamWriter) -> None:
        """Send `hello`, then `alive` each second. A standby engine sends nothing until it has received
        `Begin`.
        """
        await self._may_report.wait()
        mlx = importlib.metadata.version("mlx")
        writer.write(encode(Hello(os.getpid(), VERSION, mlx, self._blas)))
        while True:
            writer.write(encode(self._status.alive()))
            await asyncio.sleep(ALIVE_INTERVAL_S)

    def _give_up(self) -> None:
        """Exit the process at once, because the MLX thread hangs."""
        log_event("shutdown_hung", cause="the MLX thread did not end after its drain")
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        os._exit(mlx_thread.EXIT_BROKEN)
