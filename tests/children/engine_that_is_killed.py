"""Run the real engine behind a relay that kills it at a point which a test has chosen.

`kill.json` in VESTAL_HOME names the point:

    {"tokens": N}   when N tokens (of all requests) have been sent to the gateway
    {"held": N}     when N tokens in a row released no text: inside a character, a stop string, a tool call

The gateway has then received exactly these tokens. The relay deletes the file first, so the next engine
lives.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path

from mlx_server import protocol

ORDERS = Path(os.environ["VESTAL_HOME"]) / "kill.json"
READ_BYTES = 256 * 1024


class Relay:
    def __init__(self, gateway: socket.socket) -> None:
        self.gateway = gateway
        self.tokens = self.held = 0

    async def run(self) -> int:
        ours, theirs = socket.socketpair()
        arguments = ["-m", "mlx_server.engine", "--fd", str(theirs.fileno())]
        self.engine = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, pass_fds=[theirs.fileno()]
        )
        theirs.close()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.engine.terminate)
        from_gateway, to_gateway = await asyncio.open_connection(sock=self.gateway)
        # `drain` then waits until all is sent, which a relay that kills itself could not do any more.
        to_gateway.transport.set_write_buffer_limits(high=0)
        from_engine, to_engine = await asyncio.open_connection(sock=ours)
        down = asyncio.ensure_future(self.down(from_gateway, to_engine))
        frames = protocol.FrameBuffer()
        while data := await from_engine.read(READ_BYTES):
            for frame in frames.feed(data):
                to_gateway.write(frame)
                if self.is_kill_point(frame):
                    await self.kill(to_gateway)
        down.cancel()
        return await self.engine.wait()

    async def down(self, gateway: asyncio.StreamReader, engine: asyncio.StreamWriter) -> None:
        while data := await gateway.read(READ_BYTES):
            engine.write(data)
        engine.close()

    def is_kill_point(self, frame: bytes) -> bool:
        event = protocol.decode_event(frame)
        if not isinstance(event, protocol.Token) or (orders := orders_now()) is None:
            return False
        self.tokens += 1
        self.held = 0 if event.text or event.thinking or event.tool_calls else self.held + 1
        return self.tokens == orders.get("tokens") or self.held == orders.get("held")

    async def kill(self, to_gateway: asyncio.StreamWriter) -> None:
        ORDERS.unlink()
        self.engine.kill()
        await to_gateway.drain()
        os.kill(os.getpid(), signal.SIGKILL)


def orders_now() -> dict[str, int] | None:
    """Return the orders; None if there are none, or if the test is just writing or deleting them."""
    try:
        orders: dict[str, int] = json.loads(ORDERS.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return orders


if __name__ == "__main__":
    fd = int(sys.argv[sys.argv.index("--fd") + 1])
    sys.exit(asyncio.run(Relay(socket.socket(fileno=fd)).run()))
