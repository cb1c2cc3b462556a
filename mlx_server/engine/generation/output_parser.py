"""An answer's text, taken apart as it comes: thoughts, tool calls, and what is said. Pure.

    THOUGHT ──end mark──► SPEECH ──start mark──► CALL ──end mark──► SPEECH

Where tools are offered, an answer that begins as a call in bare JSON would is held until it cannot be one.
Nothing is lost: what turns out to be no call (cut off, misspelt, to an unknown tool) is said as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Literal

from mlx_server.engine.generation.tool_calls import Parser, known, may_become_call, parse
from mlx_server.protocol import ToolCall

Calls = Literal["text", "auto", "only"]


@dataclass(frozen=True)
class Marks:
    """A model's own marks; a call whose end mark is empty goes on to the answer's end."""

    think: tuple[str, str] | None = None
    call: tuple[str, str] = ("<tool_call>", "</tool_call>")
    parser: Parser | None = None


@dataclass(frozen=True)
class OutputPiece:
    """What some text released."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()

    def __add__(self, other: OutputPiece) -> OutputPiece:
        return OutputPiece(
            self.text + other.text, self.thinking + other.thinking, self.tool_calls + other.tool_calls
        )


class _In(Enum):
    THOUGHT = auto()
    SPEECH = auto()
    CALL = auto()


class OutputParser:
    """`calls`: "text" looks for none, "auto" for any among what is said, "only": the answer is one.

    `thinking` says that the prompt ends inside a thought.
    """

    def __init__(
        self,
        marks: Marks,
        calls: Calls = "text",
        tools: Sequence[dict[str, Any]] = (),
        thinking: bool = False,
    ) -> None:
        self._marks, self._calls, self._tools = marks, calls, tuple(tools)
        self._in = _In.THOUGHT if thinking else _In.SPEECH
        self._held = ""
        self._fresh = True  # nothing was said yet
        self._trim = thinking or calls != "text"  # blanks are dropped until something is said
        self.called = False

    def push(self, text: str) -> OutputPiece:
        """The answer goes on with `text`."""
        self._held += text
        out = OutputPiece()
        while True:
            before = (self._in, self._held)
            out += self._advance()
            if (self._in, self._held) == before:
                return out

    def flush(self) -> OutputPiece:
        """The answer has ended: what is still held."""
        held, self._held = self._held, ""
        match self._in:
            case _In.THOUGHT:
                return OutputPiece(thinking=held.rstrip())
            case _In.CALL:
                return self._take_calls(held, self._marks.parser, self._marks.call[0] + held)
            case _ if self._calls != "text" and self._fresh:
                return self._bare(held)
        return self._say(held)

    def _advance(self) -> OutputPiece:
        match self._in:
            case _In.THOUGHT:
                return self._think()
            case _In.SPEECH:
                return self._speak()
            case _In.CALL:
                return self._call()
        return OutputPiece()

    def _think(self) -> OutputPiece:
        assert self._marks.think
        end = self._marks.think[1]
        thought, mark, rest = self._held.partition(end)
        if mark:
            thinking = self._trimmed(thought.rstrip())
            self._in, self._held, self._trim = _In.SPEECH, rest, True
            return OutputPiece(thinking=thinking)
        cut = len(
            thought[: len(thought) - _overlap(thought, end)].rstrip()
        )  # blanks before the mark are its own
        self._held = thought[cut:]
        return OutputPiece(thinking=self._trimmed(thought[:cut]))

    def _trimmed(self, thought: str) -> str:
        """A thought's first blanks are the template's, not the thought's."""
        if self._trim:
            thought = thought.lstrip()
            self._trim = not thought
        return thought

    def _speak(self) -> OutputPiece:
        if self._trim or self._fresh:
            start = self._held.lstrip()
            if self._trim:
                self._held = start
            if self._marks.think and self._fresh:
                think = self._marks.think[0]
                if start.startswith(think):
                    self._in, self._held, self._trim = _In.THOUGHT, start[len(think) :], True
                    return OutputPiece()
                if think.startswith(start):
                    return OutputPiece()
            if self._calls == "only" or (self._calls == "auto" and self._fresh and may_become_call(start)):
                return OutputPiece()
        return self._until_call()

    def _until_call(self) -> OutputPiece:
        if self._calls != "auto":
            text, self._held = self._held, ""
            return self._say(text)
        mark = self._marks.call[0]
        said, found, rest = self._held.partition(mark)
        if found:
            self._in, self._held = _In.CALL, rest
            return self._say(said)
        keep = _overlap(said, mark)
        cut = len(said) - keep
        self._held = said[cut:]
        return self._say(said[:cut])

    def _call(self) -> OutputPiece:
        start, end = self._marks.call
        body, found, rest = self._held.partition(end) if end else (self._held, "", "")
        if not found:
            return OutputPiece()
        self._in, self._held = _In.SPEECH, rest
        return self._take_calls(body, self._marks.parser, start + body + end)

    def _take_calls(self, body: str, parser: Parser | None, as_text: str) -> OutputPiece:
        if calls := parse(body, self._tools, parser):
            self.called = self._trim = True
            self._fresh = False
            return OutputPiece(tool_calls=calls)
        return self._say(as_text)

    def _bare(self, held: str) -> OutputPiece:
        calls = parse(held, self._tools)
        if known(calls, self._tools):
            self.called = True
            return OutputPiece(tool_calls=calls)
        return self._say(held)

    def _say(self, text: str) -> OutputPiece:
        if text:
            self._fresh = self._trim = False
        return OutputPiece(text)


def _overlap(text: str, mark: str) -> int:
    """Length of the longest end of `text` that is a start of `mark`, but not the whole of it."""
    longest = min(len(text), len(mark) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(mark[:n])), 0)
