"""Show lines on the whole terminal and draw them again: for each event, each second, and for a new size."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from host_agent.cli.screen.event_feed import FeedEvent
from host_agent.cli.screen.styled import Line, as_text, printable

REDRAW_S = 1.0
RESIZED, KEY = "resized", "key"
LEAVING_KEYS = ("q", "Q", "\x1b")
TERMINATED_EXIT_CODE = 143

Events = queue.SimpleQueue[FeedEvent]


def show(
    events: Events, on_event: Callable[[FeedEvent], None], draw: Callable[[int], Sequence[Line]]
) -> None:
    """Draw until Ctrl-C or `q`, and leave the terminal as it was.

    `on_event` is called with each of `events`, on this thread; `draw` returns the lines for a width.
    """
    console = Console(highlight=False)
    live = Live(console=console, screen=True, auto_refresh=False)
    with contextlib.suppress(KeyboardInterrupt), _signals(events), _keys(events), live:
        while True:
            live.update(_fit(draw(console.width), console.width, console.height), refresh=True)
            if _take(events, on_event):
                return


def _take(events: Events, on_event: Callable[[FeedEvent], None]) -> bool:
    """Pass on all events that are there, after a wait of at most a second. Return True if the user leaves."""
    with contextlib.suppress(queue.Empty):
        event = events.get(timeout=REDRAW_S)
        while True:
            if event.name == KEY and event.data in LEAVING_KEYS:
                return True
            if event.name not in (KEY, RESIZED):
                on_event(event)
            event = events.get_nowait()
    return False


def _fit(lines: Sequence[Line], width: int, height: int) -> Group:
    """Return what fits on the screen. If lines are missing, the last one says how many."""
    hint: Line = [("Ctrl-C leaves.", "dim")]
    room = max(height - 1, 1)
    if len(lines) > room:
        hint = [(f"{len(lines) - room} more lines: make the window taller. Ctrl-C leaves.", "dim")]
    shown: list[Line] = [*lines[:room], *([[]] * (room - len(lines))), hint]
    return Group(*(_cropped(line, width) for line in shown))


def _cropped(line: Line, width: int) -> Text:
    text = as_text([(printable(part), style) for part, style in line])
    text.truncate(width, overflow="ellipsis")
    text.no_wrap = True
    return text


@contextlib.contextmanager
def _signals(events: Events) -> Iterator[None]:
    """Draw again when the terminal has another size; let SIGTERM leave through the `finally` blocks."""

    def redraw(number: int, frame: FrameType | None) -> None:
        events.put(FeedEvent(RESIZED, number))

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED_EXIT_CODE)

    before = {
        signal.SIGWINCH: signal.signal(signal.SIGWINCH, redraw),
        signal.SIGTERM: signal.signal(signal.SIGTERM, leave),
        signal.SIGHUP: signal.signal(signal.SIGHUP, leave),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _keys(events: Events) -> Iterator[None]:
    """Put each typed key into `events`, without showing it. Nothing is read unless a terminal gives input."""
    descriptor = sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else None
    if descriptor is None or os.tcgetpgrp(descriptor) != os.getpgrp():
        yield
        return
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    threading.Thread(target=_read_keys, args=(descriptor, events), daemon=True).start()
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)


def _read_keys(descriptor: int, events: Events) -> None:
    with contextlib.suppress(OSError):
        while key := os.read(descriptor, 1):
            events.put(FeedEvent(KEY, key.decode(errors="replace")))
