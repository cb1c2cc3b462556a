"""Show on the terminal's last line what a command is waiting for, and how long it has waited."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Iterator

from host_agent.cli.screen.styled import printable, unguarded
from host_agent.cli.screen.units import format_duration

FIRST_AFTER_S, AGAIN_AFTER_S = 1.0, 1.0
ERASE_LINE = "\r\x1b[K"


@contextlib.contextmanager
def waiting_for(what: str) -> Iterator[None]:
    """Show `what` and the elapsed time while the `with` block runs, if stderr is a terminal.

    The text appears after one second, and is erased when the `with` block ends.
    """
    if not sys.stderr.isatty():
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_show, args=(what, ended), name="waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _show(what: str, ended: threading.Event) -> None:
    terminal, began_at = unguarded(sys.stderr), time.monotonic()
    if ended.wait(FIRST_AFTER_S):
        return
    while True:
        line = printable(f"{what}, {format_duration(time.monotonic() - began_at)} …")
        terminal.write(ERASE_LINE + line[: shutil.get_terminal_size().columns - 1])
        terminal.flush()
        if ended.wait(AGAIN_AFTER_S):
            break
    terminal.write(ERASE_LINE)
    terminal.flush()
