"""`vestal status --watch` on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
from pathlib import Path


def test_status_watch_follows_a_terminal_resize_and_restores_the_terminal_when_it_ends(vestal, home: Path):
    (home / "token").write_text("t")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 100, 0, 0))
    with vestal.start_on(theirs, "status", "--watch") as watch:
        try:
            shown = until(ours, "vestal up")
            assert "\x1b[?1049h" in shown
            until(ours, "Ctrl-C leaves.")
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 40, 0, 0))
            watch.send_signal(signal.SIGWINCH)
            frames = (until(ours, "Ctrl-C leaves.") for _ in range(20))  # some were drawn before the resize
            assert any(widest_line(frame) <= 40 for frame in frames)
            watch.send_signal(signal.SIGINT)
            assert "\x1b[?1049l" in until(ours, "\x1b[?1049l")
            assert watch.wait(timeout=60) == 0
            assert termios.tcgetattr(theirs)[3] & termios.ECHO
        finally:
            watch.kill()
            os.close(ours)
            os.close(theirs)


def widest_line(screen: str) -> int:
    return max(len(line) for line in re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", screen).split("\r\n"))


def until(terminal: int, text: str) -> str:
    """Return the terminal output up to and including `text`."""
    shown = ""
    while text not in shown:
        assert select.select([terminal], [], [], 60)[0], shown
        shown += os.read(terminal, 65536).decode(errors="replace")
    return shown
