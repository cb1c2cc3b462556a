"""The link: events cut from the stream wherever it breaks, the end told once and last."""

from __future__ import annotations

import asyncio
import socket

import pytest

from mlx_server import protocol
from mlx_server.gateway.engine_process.link import EngineLink

TOKENS = [protocol.Token("r", n, f"ä{n}", n) for n in range(20)]


class Heard:
    def __init__(self) -> None:
        self.events: list[protocol.Event] = []
        self.ends: list[str] = []

    async def link(self) -> tuple[EngineLink, socket.socket]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        link = EngineLink(
            lambda _, event: self.events.append(event), lambda _, cause: self.ends.append(cause)
        )
        await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
        return link, theirs


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_events_when_the_stream_breaks_anywhere_come_whole_and_before_the_end(size):
    heard = Heard()
    link, theirs = await heard.link()
    stream = b"".join(protocol.encode(token) for token in TOKENS)
    with theirs:
        for start in range(0, len(stream), size):
            theirs.sendall(stream[start : start + size])
            await asyncio.sleep(0)
        theirs.sendall(b'{"ev": "token", "half')
    await asyncio.wait_for(link.lost.wait(), 5)
    assert heard.events == TOKENS
    assert heard.ends == ["end of file"]


async def test_engine_that_sends_nonsense_is_hung_up_on():
    heard = Heard()
    link, theirs = await heard.link()
    with theirs:
        theirs.sendall(protocol.encode(TOKENS[0]) + b"Segmentation fault\n" + protocol.encode(TOKENS[1]))
        await asyncio.wait_for(link.lost.wait(), 5)
        link.send(protocol.Cancel("r"))  # in vain, and no error
    assert heard.events == TOKENS[:1]
    assert len(heard.ends) == 1
    assert "no event" in heard.ends[0]
