"""Print an answer while it is streamed, with dim remarks about its engine and gateway inside the text."""

from __future__ import annotations

import os
import queue
import shutil
import sys
import time
from dataclasses import dataclass, field
from queue import SimpleQueue

from host_agent.cli.chat.answer import (
    EngineDied,
    EngineStarted,
    Failed,
    Finished,
    GatewayBack,
    GatewayLost,
    Happening,
    Piece,
)
from host_agent.cli.chat.word_wrap import WordWrap
from host_agent.cli.screen.styled import can_show_live, printable, unguarded, without_control_characters
from host_agent.cli.screen.units import format_duration

DIM, THOUGHT, ALARM = "2", "2;3", "1;31"
WAITING_NOTICE_S = 2.0
"""If no token has arrived after this time, the terminal shows that it waits for the first token."""


@dataclass
class Shown:
    """What has arrived of one answer. `text` is the text so far, and `pieces` has pairs of a piece's arrival
    time (monotonic, in seconds) and its text. Both leave out the model's thoughts.

    `finished` is None until the answer is complete, and then the event that says how many tokens it has and
    why it ended. `failure` says why the answer failed, or is empty. `died` and `started` are the events about
    deaths and starts of the engine before the answer ended. `gateway_losses` counts lost connections to the
    gateway.
    """

    text: str = ""
    finished: Finished | None = None
    failure: str = ""
    pieces: list[tuple[float, str]] = field(default_factory=list)
    died: list[EngineDied] = field(default_factory=list)
    started: list[EngineStarted] = field(default_factory=list)
    gateway_losses: int = 0


class AnswerView:
    """Prints one answer to stdout and, if stdout is a terminal, remarks about the engine and the gateway.

    Control characters are left out, because a model's text may contain commands for the terminal.
    """

    def __init__(self) -> None:
        self.shown = Shown()
        self._is_terminal = can_show_live()
        self._is_colored = not os.environ.get("NO_COLOR")
        self._wrap = WordWrap()
        self._interrupted_at: float | None = None
        self._is_thinking = self._is_waiting = False

    def follow(self, happenings: SimpleQueue[Happening]) -> Shown:
        """Print events from the queue until the answer ends, and return what was shown.

        Raises KeyboardInterrupt if the person presses Ctrl-C.
        """
        began_at = time.monotonic()
        while self.shown.finished is None and not self.shown.failure:
            try:
                self.show(happenings.get(timeout=1.0))
            except queue.Empty:
                waited_s = time.monotonic() - began_at
                if not self.shown.text and not self._is_thinking and waited_s >= WAITING_NOTICE_S:
                    self._wait(f"waiting for the first token, {format_duration(waited_s)} …")
        self._end_of_waiting()
        return self.shown

    def show(self, happening: Happening) -> None:
        """Print one event of the answer, and record it in `shown`."""
        match happening:
            case Piece():
                self._end_of_waiting()
                self._show_piece(happening)
            case EngineDied(pid, cause):
                self.shown.died.append(happening)
                self._interrupt(f"the engine (PID {pid}) died: {cause}")
            case EngineStarted():
                self.shown.started.append(happening)
            case GatewayLost(reason):
                self.shown.gateway_losses += 1
                self._interrupt(f"the MLX server went away: {reason}")
            case GatewayBack():
                pass
            case Finished():
                self.shown.finished = happening
            case Failed(sentence):
                self.shown.failure = sentence

    def remark(self, text: str, style: str = DIM) -> None:
        """Print a remark between the pieces of the answer, if stdout is a terminal."""
        if self._is_terminal:
            self._write(printable(text), style)

    def _show_piece(self, piece: Piece) -> None:
        if self._interrupted_at is not None:
            pause_s = time.monotonic() - self._interrupted_at
            self._interrupted_at = None
            by = f", by PID {self.shown.started[-1].pid}" if self.shown.started else ""
            self.remark(f" goes on after {pause_s:.1f} s{by}⟩")
        if not piece.is_thought:
            self.shown.pieces.append((time.monotonic(), piece.text))
            self.shown.text += piece.text
        text = without_control_characters(piece.text)
        if not self._is_terminal:
            if not piece.is_thought:
                self._print(text)
            return
        if self._is_thinking and not piece.is_thought:
            self._write("\n\n", "")
        self._is_thinking = piece.is_thought
        self._write(text, THOUGHT if piece.is_thought else "")

    def _write(self, text: str, style: str) -> None:
        """Write to the terminal, wrapped at words. `style` has the codes of the escape sequence SGR, such as
        `1;31`; "" means no style.
        """
        wrapped = self._wrap.feed(text, shutil.get_terminal_size().columns)
        styled = f"\x1b[{style}m{wrapped}\x1b[0m" if style and self._is_colored else wrapped
        self._print(styled)

    def _interrupt(self, what: str) -> None:
        """Print the remark `what`, which says what interrupted the answer, after the text shown so far."""
        self._end_of_waiting()
        if self._interrupted_at is None:
            self._interrupted_at = time.monotonic()
            self.remark(f" ⟨{what} …")
        else:
            self.remark(f" {what} …")

    def _wait(self, text: str) -> None:
        if self._is_terminal and self._interrupted_at is None:
            self._is_waiting = True
            self._print(f"\r\x1b[2m{text}\x1b[0m\x1b[K")

    def _end_of_waiting(self) -> None:
        if self._is_waiting:
            self._is_waiting = False
            self._print("\r\x1b[K")

    @staticmethod
    def _print(text: str) -> None:
        """Write to stdout a text that may contain the view's own escape sequences."""
        stdout = unguarded(sys.stdout)
        stdout.write(text)
        stdout.flush()
