"""The gateway's end of the link: whole events from a split stream, and one report of the link's end, last."""

from __future__ import annotations

import asyncio
import socket

import pytest

from mlx_server import protocol
from mlx_server.gateway.engine_process.link import EngineLink

TOKENS = [protocol.Token("r", n, f"ä{n}", n) for n in range(20)]
DEADLINE_S = 30


class Recorder:
    def __init__(self) -> None:
        self.events: list[protocol.Event] = []
        self.ends: list[str] = []

    async def link(self) -> tuple[EngineLink, socket.socket]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        link = EngineLink(self.events.append, self.ends.append)
        await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
        return link, theirs


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_engine_link_delivers_every_complete_event_before_reporting_the_end_however_bytes_are_split(
    size,
):
    recorder = Recorder()
    link, theirs = await recorder.link()
    stream = b"".join(protocol.encode(token) for token in TOKENS)
    with theirs:
        for start in range(0, len(stream), size):
            theirs.sendall(stream[start : start + size])
            await asyncio.sleep(0)
        theirs.sendall(protocol.encode(TOKENS[0])[:-1])
    await asyncio.wait_for(link.lost.wait(), DEADLINE_S)
    assert recorder.events == TOKENS
    assert recorder.ends == ["end of file"]


@pytest.mark.parametrize("nonsense", [b"Segmentation fault\n", protocol.encode(protocol.Cancel("r"))])
async def test_engine_link_is_closed_when_the_engine_sends_invalid_bytes(nonsense):
    recorder = Recorder()
    link, theirs = await recorder.link()
    with theirs:
        theirs.sendall(protocol.encode(TOKENS[0]) + nonsense + protocol.encode(TOKENS[1]))
        await asyncio.wait_for(link.lost.wait(), DEADLINE_S)
        link.send(protocol.Cancel("r"))  # has no effect, and raises nothing
    assert recorder.events == TOKENS[:1]
    assert len(recorder.ends) == 1
    assert "not an event" in recorder.ends[0]


async def test_closed_engine_link_drops_a_frame_without_raising():
    recorder = Recorder()
    link, theirs = await recorder.link()
    with theirs:
        link.abort("the test is over")
        await asyncio.wait_for(link.lost.wait(), DEADLINE_S)
        link.send_frame(protocol.encode(protocol.Cancel("r")))
    assert recorder.ends == ["the test is over"]
