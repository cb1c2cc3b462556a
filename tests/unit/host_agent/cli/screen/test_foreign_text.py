"""Text of models, hubs and logs cannot command the terminal, and any text can be printed."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator

import pytest
from rich.color import ColorSystem

from host_agent.cli.models.download_view import download_view
from host_agent.cli.orchestrator import search
from host_agent.cli.screen.styled import guarded_output, print_lines, unguarded
from host_agent.cli.table import Column, print_table

HOSTILE = "hi \x1b]0;owned\x07\x1b[2J\x9b1m \u202egnp"
HARMLESS = "hi ]0;owned[2J1m gnp"


class Terminal(io.TextIOWrapper):
    """Records as bytes what is written to a terminal."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), "utf-8", write_through=True)

    def isatty(self) -> bool:
        return True

    def written(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode()  # type: ignore[attr-defined]


@contextlib.contextmanager
def on_terminal() -> Iterator[Terminal]:
    """Let stdout and stderr be one terminal, guarded as in any command, until the `with` block ends."""
    terminal = Terminal()
    with contextlib.redirect_stdout(terminal), contextlib.redirect_stderr(terminal):
        with guarded_output():
            yield terminal
        assert sys.stdout is terminal


def test_anything_printed_on_a_terminal_loses_its_control_characters():
    with on_terminal() as terminal:
        print(HOSTILE)
        print(HOSTILE, file=sys.stderr)
        sys.stdout.writelines([HOSTILE, "\ta\n"])
    assert terminal.written() == f"{HARMLESS}\n{HARMLESS}\n{HARMLESS}\ta\n"


def test_escape_sequences_of_the_command_itself_reach_the_terminal():
    with on_terminal() as terminal:
        unguarded(sys.stdout).write("\r\x1b[K")
    assert terminal.written() == "\r\x1b[K"


def test_output_to_a_pipe_keeps_its_control_characters(capsys: pytest.CaptureFixture[str]):
    with guarded_output():
        print(HOSTILE)
    assert capsys.readouterr().out == f"{HOSTILE}\n"


def test_text_with_half_a_surrogate_pair_is_printed_with_an_escape(capsys: pytest.CaptureFixture[str]):
    with guarded_output():
        print("half \ud83d")
    assert capsys.readouterr().out == "half \\ud83d\n"


def test_table_prints_no_control_characters_of_its_cells(monkeypatch: pytest.MonkeyPatch):
    """The doctor shows the last lines of a log in a table: one of them set the terminal's title."""
    monkeypatch.setenv("NO_COLOR", "1")
    with on_terminal() as terminal:
        print_table([Column(), Column()], [("name", HOSTILE), ("styled", (HOSTILE, "red"))])
    lines = [line.split(maxsplit=1) for line in terminal.written().splitlines()]
    assert [(name, text.rstrip()) for name, text in lines] == [("name", HARMLESS), ("styled", HARMLESS)]


def test_search_result_prints_no_control_characters():
    result = {"agent": "a", "file": HOSTILE, "heading": HOSTILE, "text": HOSTILE}
    lines = search._lines({"note": "", "results": [result]})
    assert lines == [f"1. a/{HARMLESS} ({HARMLESS})", f"    {HARMLESS}"]


def test_styled_lines_keep_their_colors_on_a_guarded_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("host_agent.cli.screen.styled._color_system", lambda: ColorSystem.STANDARD)
    with on_terminal() as terminal:
        print_lines([[(HOSTILE, "red")]])
    assert terminal.written() == f"\x1b[31m{HARMLESS}\x1b[0m\n"


def test_download_bars_are_drawn_without_control_characters_of_a_models_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm")
    update = {"model": f"[/x]{HOSTILE}", "sentence": HOSTILE, "fraction": 0.0, "bytes": 0}
    with on_terminal() as terminal, download_view() as view:
        view.show(update)
    written = terminal.written()
    assert f"[/x]{HARMLESS}: {HARMLESS}" in written
    assert "\x1b[2K" in written and "\x1b]0" not in written and "\u202e" not in written
