"""The followers of GET /requests/events: when a frame is sent, how many there may be, and how they end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mlx_server.gateway.errors import Unavailable
from mlx_server.gateway.in_flight.followers import LOOK_S, MAX_FOLLOWERS, REPEAT_S, Followers
from vestal.supervision import FakeClock


class Shown:
    """A fake report of the requests; `made` counts how often it was read."""

    def __init__(self) -> None:
        self.body: dict[str, Any] = {"requests": []}
        self.made = 0

    def __call__(self) -> dict[str, Any]:
        self.made += 1
        return self.body


class Looking(FakeClock):
    """A clock that advances by LOOK_S each time it is read."""

    def now(self) -> float:
        self.advance(LOOK_S)
        return super().now()


def data_of(frame: bytes) -> dict[str, Any]:
    name, data, *rest = frame.split(b"\n")
    assert (name, rest) == (b"event: requests", [b"", b""])
    return json.loads(data.removeprefix(b"data: "))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the delay between two readings of the report."""
    monkeypatch.setattr("mlx_server.gateway.in_flight.followers.LOOK_S", 0)


async def next_of(frames: AsyncIterator[bytes]) -> bytes:
    return await asyncio.wait_for(anext(frames), 5)


async def test_requests_feed_sends_a_frame_after_each_change_and_at_least_every_ten_seconds():
    shown, clock = Shown(), Looking()
    frames = Followers(shown, clock).frames()
    assert data_of(await next_of(frames)) == {"requests": []}
    shown.body = {"requests": [{"id": "a", "tokens": 1}]}
    assert data_of(await next_of(frames)) == shown.body
    made = shown.made
    assert data_of(await next_of(frames)) == shown.body
    assert shown.made - made == REPEAT_S / LOOK_S, "it was looked at each second, and sent once"


async def test_requests_feed_builds_each_frame_once_for_all_followers():
    shown, clock = Shown(), FakeClock()
    followers = Followers(shown, clock)
    streams = [followers.frames() for _ in range(20)]
    assert len({await next_of(stream) for stream in streams}) == 1
    assert shown.made == 1


async def test_feed_of_in_flight_requests_refuses_a_follower_beyond_the_limit_until_another_follower_leaves():
    followers = Followers(Shown(), FakeClock())
    responses = [followers.response() for _ in range(MAX_FOLLOWERS)]
    with pytest.raises(Unavailable) as raised:
        followers.response()
    assert (raised.value.status, raised.value.code) == (503, "overloaded")

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        await asyncio.sleep(0)

    await responses[0]({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)
    followers.response()


async def test_closing_the_feed_of_in_flight_requests_ends_all_its_streams_and_refuses_new_ones(monkeypatch):
    monkeypatch.setattr("mlx_server.gateway.in_flight.followers.LOOK_S", 3600)
    followers = Followers(Shown(), FakeClock())
    frames = followers.frames()
    await next_of(frames)
    following = asyncio.ensure_future(anext(frames))
    await asyncio.sleep(0)
    followers.close()
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(following, 5)
    with pytest.raises(Unavailable) as raised:
        followers.response()
    assert raised.value.code == "draining"


async def test_feed_of_in_flight_requests_sends_a_slow_follower_only_the_newest_state():
    shown, clock = Shown(), FakeClock()
    frames = Followers(shown, clock).frames()
    await next_of(frames)
    for number in range(50):  # the follower is still reading the first frame
        shown.body = {"requests": [{"id": "a", "tokens": number}]}
        clock.advance(1)
    assert data_of(await next_of(frames)) == shown.body
    assert shown.made == 2
