"""A small program that follows the gateway's part of docs/decisions/0023-upgrade-in-place.md.

It serves the sockets that it inherits, or binds the port itself: GET /health, and GET /stream?lines=N, which
writes a line each 50 ms. GET /held?lines=N writes the last line only once VESTAL_HOME has a file `go_on`. The
lock on `answers.lock` in VESTAL_HOME stands for the log of answers: the process that holds it accepts
connections.

`stand_in.json` in VESTAL_HOME has it misbehave: {"successor": "exits"} (with the sentence "there is no such
model"), "is silent" or "dies when it is ready"; {"hands_over": false} has it ignore SIGUSR1.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from vestal.supervision.handover.successor import Succession
from vestal.web import acceptor
from vestal.web.acceptor import Acceptor
from vestal.web.connections import ConnectionTable
from vestal.web.listening_sockets import InheritedSockets

HOME = Path(os.environ["VESTAL_HOME"])
GO_ON = HOME / "go_on"
PORT = int(os.environ["VESTAL_MLX_PORT"])
LINE_S = 0.05
HEALTHY = {
    "status": "ok",
    "pid": os.getpid(),
    "hands_over": True,
    "engine": {"pid": None, "state": "ready", "restarts": 0, "last_crash": None},
}


def behaviour() -> dict[str, Any]:
    with contextlib.suppress(FileNotFoundError):
        return json.loads((HOME / "stand_in.json").read_text())
    return {}


class Gateway:
    def __init__(self) -> None:
        self.lock = os.open(HOME / "answers.lock", os.O_RDWR | os.O_CREAT, 0o600)
        self.streams: set[asyncio.Task[None]] = set()
        self.stop = asyncio.Event()
        self.hand_over = asyncio.Event()

    async def take_lock(self) -> None:
        while True:
            with contextlib.suppress(BlockingIOError):
                return fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            await asyncio.sleep(0.02)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self.streams.add(task)
        try:
            target = (await reader.readline()).split()[1].decode()
            while (await reader.readline()).strip():
                pass
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
            if target.startswith(("/stream", "/held")):
                lines = int(target.rpartition("=")[2])
                for number in range(lines):
                    if target.startswith("/held") and number == lines - 1:
                        while not GO_ON.exists():  # noqa: ASYNC110 - another process creates it
                            await asyncio.sleep(LINE_S)
                    writer.write(f"{number} {os.getpid()}\n".encode())
                    await writer.drain()
                    await asyncio.sleep(LINE_S)
            else:
                writer.write(json.dumps(HEALTHY).encode())
            await writer.drain()
        except (IndexError, OSError):
            pass
        finally:
            self.streams.discard(task)
            writer.close()

    def make_protocol(self) -> asyncio.Protocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), self.serve)

    async def run(self, succession: Succession, inherited: InheritedSockets) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        if behaviour().get("hands_over", True):
            loop.add_signal_handler(signal.SIGUSR1, self.hand_over.set)
        else:
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        if succession.predecessor is not None:
            match behaviour().get("successor"):
                case "exits":
                    print("there is no such model", flush=True)
                    return 78
                case "is silent":
                    await self.stop.wait()
                    return 0
        succession.report_ready()
        if succession.predecessor is not None and behaviour().get("successor") == "dies when it is ready":
            os.kill(os.getpid(), signal.SIGKILL)
        taking = asyncio.ensure_future(self.take_lock())
        stopping = asyncio.ensure_future(self.stop.wait())
        await asyncio.wait({taking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if self.stop.is_set():
            return 0
        listening = inherited.take("127.0.0.1", PORT) or acceptor.bind("127.0.0.1", PORT)
        # An asyncio server that is closed in the turn in which it accepts a connection resets the connection.
        server = Acceptor(listening, self.make_protocol, ConnectionTable(max_open=1000))
        server.start()
        succession.report_serving()
        handing = asyncio.ensure_future(self.hand_over.wait())
        await asyncio.wait({handing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        server.close()
        await server.wait_closed()
        await asyncio.sleep(LINE_S)  # the connections that were just accepted have their tasks
        fcntl.flock(self.lock, fcntl.LOCK_UN)
        while self.streams and not self.stop.is_set():
            await asyncio.wait({*self.streams, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return 0


async def main() -> int:
    succession, inherited = Succession.from_environment(), InheritedSockets.from_environment()
    return await Gateway().run(succession, inherited)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
