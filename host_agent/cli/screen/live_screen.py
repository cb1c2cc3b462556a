"""Fill the terminal with lines, and redraw them each second, after each event, and after a resize."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from host_agent.cli.screen.event_feed import FeedEvent
from host_agent.cli.screen.styled import Line, as_text, printable, unguarded

REDRAW_S = 1.0
RESIZED, KEY = "resized", "key"
ESCAPE = "\x1b"
LEAVING_KEYS = ("q", "Q", ESCAPE)
READ_BYTES = 1024
SEQUENCE_S = 0.05
"""How long after the byte of Esc the rest of an escape sequence may arrive."""
_KEY = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.|[^\x1b])|.", re.DOTALL)

Events = queue.SimpleQueue[FeedEvent]


def show(
    events: Events, on_event: Callable[[FeedEvent], None], draw: Callable[[int], Sequence[Line]]
) -> None:
    """Draw the screen until the user types `q`, Esc or Ctrl-C, then restore the terminal.

    `on_event` is called on this thread with each item of `events`; `draw` returns the lines for a given width
    in columns.
    """
    console = Console(file=unguarded(sys.stdout), highlight=False)
    live = Live(console=console, screen=True, auto_refresh=False)
    keys = _Keys(events)
    with contextlib.suppress(KeyboardInterrupt), _signals(events, console, keys), keys, live:
        while True:
            live.update(_fit(draw(console.width), console.width, console.height), refresh=True)
            if _take(events, on_event):
                return


def _take(events: Events, on_event: Callable[[FeedEvent], None]) -> bool:
    """Wait up to REDRAW_S for an event, and pass all waiting events to `on_event`.

    Return True if the user has typed a key that ends the command (`q` or Esc).
    """
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
    """Return the lines that fit on the screen. If there are more, the last line says how many are not
    shown.
    """
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


class _Keys:
    """Puts each key that is typed inside its `with` block into `events`, without echo, if stdin is a
    terminal.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self._descriptor: int | None = None
        self._before: list[Any] = []

    def __enter__(self) -> None:
        if sys.stdin and _has_keyboard(sys.stdin.fileno()):
            self._descriptor = sys.stdin.fileno()
            self._before = termios.tcgetattr(self._descriptor)
            self.take_over()
            threading.Thread(target=self._read, args=(self._descriptor,), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.give_back()

    def take_over(self) -> None:
        """Make the terminal deliver each key at once and without echo."""
        if self._descriptor is not None:
            tty.setcbreak(self._descriptor)

    def give_back(self) -> None:
        """Restore the terminal's original settings."""
        if self._descriptor is not None:
            termios.tcsetattr(self._descriptor, termios.TCSAFLUSH, self._before)

    def _read(self, descriptor: int) -> None:
        """Read the keys that are typed on the terminal `descriptor`, and put each into the queue. The
        terminal sends an arrow key or a turn of the mouse wheel as Esc and further characters; such a
        sequence is put into the queue as one key.
        """
        with contextlib.suppress(OSError):
            while typed := os.read(descriptor, READ_BYTES):
                if typed.endswith(b"\x1b") and select.select([descriptor], [], [], SEQUENCE_S)[0]:
                    typed += os.read(descriptor, READ_BYTES)
                for key in _KEY.findall(typed.decode(errors="replace")):
                    self._events.put(FeedEvent(KEY, key))


def _has_keyboard(descriptor: int) -> bool:
    """Return whether the file descriptor is a terminal that has this process in its foreground."""
    try:
        return os.isatty(descriptor) and os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:  # the terminal belongs to another session
        return False


@contextlib.contextmanager
def _signals(events: Events, console: Console, keys: _Keys) -> Iterator[None]:
    """Handle signals until the `with` block ends: redraw after a resize, and leave at SIGTERM or SIGHUP.

    At Ctrl-Z, restore the terminal until the process continues.
    """

    def redraw(number: int, frame: FrameType | None) -> None:
        events.put(FeedEvent(RESIZED, number))

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    def suspend(number: int, frame: FrameType | None) -> None:
        keys.give_back()
        console.set_alt_screen(False)
        console.show_cursor(True)
        os.kill(os.getpid(), signal.SIGSTOP)  # returns after SIGCONT
        keys.take_over()
        console.set_alt_screen(True)
        console.show_cursor(False)
        redraw(number, frame)

    handlers = {
        signal.SIGWINCH: redraw,
        signal.SIGTERM: leave,
        signal.SIGHUP: leave,
        signal.SIGTSTP: suspend,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
