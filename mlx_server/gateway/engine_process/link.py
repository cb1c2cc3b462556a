"""The gateway's end of its connection to one engine: a socketpair that carries `mlx_server.protocol`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mlx_server import protocol


class EngineLink(asyncio.Protocol):
    """Sends operations to the engine, and splits the bytes that the engine sends into events.

    `on_event` is called with each event in order; `on_lost` is called once, after the last event, with the
    reason why the connection closed.
    """

    def __init__(self, on_event: Callable[[protocol.Event], None], on_lost: Callable[[str], None]) -> None:
        self.lost = asyncio.Event()
        self._on_event = on_event
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._frames = protocol.FrameBuffer()
        self.protocol_fault = ""  # describes what the engine sent that is not an event; else empty
        self._fault = ""

    def send(self, operation: protocol.Op) -> None:
        """Encode an operation and send it to the engine. This does nothing if the connection is closed."""
        self.send_frame(protocol.encode(operation))

    def send_frame(self, frame: bytes) -> None:
        """Send an operation that is already encoded as a frame. This does nothing if the connection is
        closed, which `on_lost` reports.
        """
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def abort(self, fault: str) -> None:
        """Close the connection because of `fault`. The engine exits when it reads the end of file."""
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
                self._on_event(protocol.decode_event(frame))
        except protocol.ProtocolError as error:
            self.protocol_fault = f"the engine sent what is not an event: {error}"
            self.abort(self.protocol_fault)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        self._on_lost(self._fault or (str(exc) if exc else "end of file"))
