"""The live screens of `vestal top` and `vestal status --watch`: leaving keys, and refused streams."""

from __future__ import annotations

import os
import queue
from types import SimpleNamespace

import pytest

from host_agent.cli.screen import live_screen
from host_agent.cli.screen.event_feed import LOST, FeedEvent, NotAStream
from host_agent.cli.status.watch import WatchedStatus


@pytest.mark.parametrize("typed", [b"q", b"Q", b"\x1b", b"\x1b[Aq", b"xq"])
def test_live_screen_ends_when_q_or_escape_is_typed(typed: bytes):
    assert ends_when_typed(typed)


@pytest.mark.parametrize(
    "typed",
    [b"\x1b[A", b"\x1bOB", b"\x1b[A\x1b[A\x1b[A", b"\x1b[1;5C", b"\x1b[5~", b"\x1bq", "é".encode(), b"x"],
)
def test_live_screen_goes_on_when_another_key_is_pressed_or_the_mouse_wheel_is_turned(typed: bytes):
    """Terminals send the wheel as arrow keys, whose first byte is that of Esc: each ended `vestal top`."""
    assert not ends_when_typed(typed)


def test_live_screen_goes_on_when_an_arrow_key_arrives_in_two_parts(monkeypatch: pytest.MonkeyPatch):
    parts = iter([b"\x1b", b"[A", b""])
    monkeypatch.setattr(live_screen.os, "read", lambda descriptor, most: next(parts))
    monkeypatch.setattr(live_screen.select, "select", lambda *_: ([0], [], []))
    events: live_screen.Events = queue.SimpleQueue()
    live_screen._Keys(events)._read(0)
    assert not live_screen._take(events, lambda event: None)


def ends_when_typed(typed: bytes) -> bool:
    reader, writer = os.pipe()
    os.write(writer, typed)
    os.close(writer)
    events: live_screen.Events = queue.SimpleQueue()
    live_screen._Keys(events)._read(reader)
    os.close(reader)
    return live_screen._take(events, lambda event: None)


@pytest.mark.parametrize(("status", "is_older"), [(404, True), (401, False), (503, False)])
def test_status_watch_follows_the_journal_only_if_an_older_agent_has_no_status_stream(
    status: int, is_older: bool
):
    followed: list[bool] = []
    poller = SimpleNamespace(ask_soon=lambda: None, is_needed=True)
    watched = WatchedStatus(poller, lambda: followed.append(True))  # type: ignore[arg-type]
    watched.on_event(FeedEvent(LOST, NotAStream(status)))
    assert bool(followed) is is_older
