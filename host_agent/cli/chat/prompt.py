"""Read lines that a person types, with a history file that other users of this machine cannot read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from host_agent.cli.screen.styled import can_show_live

MOST_LINES = 1000
OWNER_ONLY = 0o600


@contextlib.contextmanager
def line_history(path: Path, completions: Sequence[str]) -> Iterator[None]:
    """Enable line editing, a history of earlier lines, and Tab completion from `completions` for `input`,
    until the `with` block ends.

    The lines are stored in the file `path`. If that file cannot be read or written, the error is ignored.
    """
    try:
        import readline
    except ImportError:  # a Python without readline still reads lines
        yield
        return
    readline.clear_history()
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(MOST_LINES)
    is_libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")
    readline.set_completer_delims("")
    readline.set_completer(
        lambda text, state: [*(c for c in completions if text and c.startswith(text)), None][state]
    )
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, OWNER_ONLY))
            os.chmod(path, OWNER_ONLY)
            readline.write_history_file(path)


def ask_for_line(prompt: str) -> str:
    """Show `prompt` in bold and a space, and return the next line that a person types. Raises EOFError at
    Ctrl-D and KeyboardInterrupt at Ctrl-C.
    """
    if not can_show_live():
        return input()
    # \001 and \002 enclose characters of no width, so that readline knows where the line wraps.
    # The blank follows the reset, because libedit (macOS) drops such characters at the end of a prompt.
    return input(f"\001\x1b[1m\002{prompt.rstrip(' ')}\001\x1b[0m\002 ")
