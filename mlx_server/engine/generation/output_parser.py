"""Split an answer's text, as it arrives, into thinking, tool calls and visible text. Pure.

    THINKING ──end marker──► TEXT ──start marker──► TOOL_CALL ──end marker──► TEXT
    THINKING ──start marker──► TOOL_CALL ──end marker──► THINKING

Models also write calls as bare JSON, without markers. So if tools are offered, an answer whose beginning may
be such a call is withheld until it cannot be a call. No output is lost: what turns out not to be a call
(because it is truncated, misspelled, or names a tool that was not offered) is released as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Literal, Protocol

from mlx_server.engine.generation.detokenizer import partial_match_length
from mlx_server.engine.generation.harmony_tokens import HarmonyTokens
from mlx_server.engine.generation.tool_calls import (
    ToolParser,
    are_all_offered,
    may_begin_call_beside_a_schema,
    may_begin_tool_call,
    parse_calls_beside_a_schema,
    parse_tool_calls,
)
from mlx_server.protocol import ToolCall

ToolChoice = Literal["none", "auto", "required"]


@dataclass(frozen=True)
class CallFormat:
    """The markers that a model writes before (`start`) and after (`end`) tool calls, and the `parser` of the
    text between them. If `end` is empty, a call extends to the end of the answer. Without a `parser`, calls
    are JSON.
    """

    start: str
    end: str
    parser: ToolParser | None = None


TAGGED_JSON = CallFormat("<tool_call>", "</tool_call>")


@dataclass(frozen=True)
class OutputMarkers:
    """The texts that a model writes before and after its thinking and its tool calls.

    `thinking` is None for a model that does not think. `wrappers` are markers around visible text, and are
    dropped. `harmony` holds the special tokens of a model that writes the Harmony format, which makes the
    other fields irrelevant; else None.
    """

    thinking: tuple[str, str] | None = None
    calls: tuple[CallFormat, ...] = (TAGGED_JSON,)
    wrappers: tuple[str, ...] = ()
    harmony: HarmonyTokens | None = None

    @property
    def thinks(self) -> bool:
        """Return whether the model can think before it answers."""
        return self.thinking is not None or self.harmony is not None


@dataclass(frozen=True)
class OutputPiece:
    """A part of an answer: visible text, thinking and tool calls."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()

    def __add__(self, other: OutputPiece) -> OutputPiece:
        return OutputPiece(
            self.text + other.text, self.thinking + other.thinking, self.tool_calls + other.tool_calls
        )


class AnswerParser(Protocol):
    """The interface of a parser of one answer.

    `push` takes the answer's text, and `push_control` takes each token that is one of `control_tokens`, in
    the order in which they occur in the answer. `flush` ends the answer. Each method returns what can be sent
    to the client now. `has_tool_calls` is True once a method has returned a tool call.
    """

    control_tokens: frozenset[int]
    has_tool_calls: bool

    @property
    def is_thinking(self) -> bool: ...
    def push(self, text: str) -> OutputPiece: ...
    def push_control(self, token: int) -> OutputPiece: ...
    def flush(self) -> OutputPiece: ...


class _Section(Enum):
    THINKING = auto()
    TEXT = auto()
    TOOL_CALL = auto()


class OutputParser:
    """Parses one answer: `push` takes its text in pieces, `flush` ends it.

    With `tool_choice` "none", calls remain text; with "auto", they are found anywhere in the visible text;
    with "required", the whole answer must consist of calls. `tools` are the tools that the client offers.
    `thinking` is True if the prompt ends inside the model's thinking, so that the answer begins there. With
    `has_schema`, a grammar makes the visible text either match the client's schema, or be calls as bare JSON:
    markers of calls are then ordinary text. `has_tool_calls` becomes True with the first call.
    """

    def __init__(
        self,
        markers: OutputMarkers,
        tool_choice: ToolChoice = "none",
        tools: Sequence[dict[str, Any]] = (),
        thinking: bool = False,
        has_schema: bool = False,
    ) -> None:
        self._markers, self._tool_choice, self._tools = markers, tool_choice, tuple(tools)
        self._section = _Section.THINKING if thinking else _Section.TEXT
        self._formats = {one.start: one for one in markers.calls} if tool_choice == "auto" else {}
        self._text_ends = markers.wrappers if has_schema else (*self._formats, *markers.wrappers)
        self._has_schema = has_schema
        self._may_begin_call = may_begin_call_beside_a_schema if has_schema else may_begin_tool_call
        self._parse_bare_calls = parse_calls_beside_a_schema if has_schema else parse_tool_calls
        self._format = markers.calls[0]  # of the call that is being read
        self._call_in_thinking = False
        self._before_call = ""  # whitespace before a call in the thinking
        self._withheld = ""
        self._at_start = True  # no visible text and no call yet
        self._skip_whitespace = thinking or tool_choice != "none"  # until the next text or thinking
        self.has_tool_calls = False
        self.control_tokens: frozenset[int] = frozenset()

    @property
    def is_thinking(self) -> bool:
        """Return whether the answer so far ends inside the model's thinking."""
        return self._section is _Section.THINKING

    def push(self, text: str) -> OutputPiece:
        """Append `text` to the answer. Return what can be sent to the client now, without what earlier calls
        returned. Text that may be part of a marker or of a tool call is withheld until that is decided.
        """
        self._withheld += text
        released = OutputPiece()
        while True:
            before = (self._section, self._withheld)
            released += self._advance()
            if (self._section, self._withheld) == before:
                return released

    def push_control(self, token: int) -> OutputPiece:
        """Return an empty piece, because this parser finds all markers in the text."""
        return OutputPiece()

    def flush(self) -> OutputPiece:
        """End the answer, and return everything that was withheld."""
        rest, self._withheld = self._withheld, ""
        match self._section:
            case _Section.THINKING:
                return OutputPiece(thinking=rest.rstrip())
            case _Section.TOOL_CALL:
                return self._calls_or_else(rest, self._format.start + rest)
            case _ if self._tool_choice != "none" and self._at_start:
                return self._bare_calls_or_text(rest)
        return self._text(rest)

    def _advance(self) -> OutputPiece:
        match self._section:
            case _Section.THINKING:
                return self._advance_thinking()
            case _Section.TEXT:
                return self._advance_text()
            case _Section.TOOL_CALL:
                return self._advance_tool_call()
        return OutputPiece()

    def _advance_thinking(self) -> OutputPiece:
        assert self._markers.thinking
        end = self._markers.thinking[1]
        # A model that forgets to end its thinking writes calls within it. Only formats with an end marker can
        # be recognized there.
        starts = [start for start, one in self._formats.items() if one.end]
        found = [(at, -len(one), one) for one in (end, *starts) if (at := self._withheld.find(one)) >= 0]
        at, _, first = min(found, default=(0, 0, end))
        if first != end:
            return self._begin_call_in_thinking(at, first)
        thought, marker, rest = self._withheld.partition(end)
        if marker:
            thinking = self._without_leading_whitespace(thought.rstrip())
            self._section, self._withheld, self._skip_whitespace = _Section.TEXT, rest, True
            return OutputPiece(thinking=thinking)
        # Whitespace before the end marker belongs to the marker, so it is withheld with the marker's start.
        kept = max(partial_match_length(thought, one) for one in (end, *starts))
        without_marker = thought[: len(thought) - kept]
        cut = len(without_marker.rstrip())
        self._withheld = thought[cut:]
        return OutputPiece(thinking=self._without_leading_whitespace(thought[:cut]))

    def _begin_call_in_thinking(self, at: int, marker: str) -> OutputPiece:
        thought, self._withheld = self._withheld[:at], self._withheld[at + len(marker) :]
        visible = thought.rstrip()
        self._before_call, self._call_in_thinking = thought[len(visible) :], True
        self._section, self._format = _Section.TOOL_CALL, self._formats[marker]
        return OutputPiece(thinking=self._without_leading_whitespace(visible))

    def _without_leading_whitespace(self, thought: str) -> str:
        """Return `thought`, without its leading whitespace if it is the beginning of the model's thinking.
        Such whitespace is there only because of the chat template.
        """
        if self._skip_whitespace:
            thought = thought.lstrip()
            self._skip_whitespace = not thought
        return thought

    def _advance_text(self) -> OutputPiece:
        if self._skip_whitespace or self._at_start:
            text = self._withheld.lstrip()
            if self._skip_whitespace:
                self._withheld = text
            if self._markers.thinking and self._at_start:
                marker = self._markers.thinking[0]
                if text.startswith(marker):
                    self._section, self._withheld = _Section.THINKING, text[len(marker) :]
                    self._skip_whitespace = True
                    return OutputPiece()
                if marker.startswith(text):
                    return OutputPiece()
            may_call = self._tool_choice == "auto" and self._at_start
            if self._tool_choice == "required" or (may_call and self._may_begin_call(text, self._tools)):
                return OutputPiece()
        return self._text_up_to_call()

    def _text_up_to_call(self) -> OutputPiece:
        """Return the withheld text before the next marker, and drop the marker; if it begins a call, the
        parser continues in the call. Without a marker, return all withheld text, except an end that may begin
        a marker.
        """
        markers = self._text_ends
        found = [(at, -len(marker), marker) for marker in markers if (at := self._withheld.find(marker)) >= 0]
        if not found:
            kept = max((partial_match_length(self._withheld, marker) for marker in markers), default=0)
            cut = len(self._withheld) - kept
            text, self._withheld = self._withheld[:cut], self._withheld[cut:]
            return self._text(text)
        at, _, marker = min(found)
        text, self._withheld = self._withheld[:at], self._withheld[at + len(marker) :]
        if marker in self._formats:
            self._section, self._format = _Section.TOOL_CALL, self._formats[marker]
        return self._text(text)

    def _advance_tool_call(self) -> OutputPiece:
        start, end = self._format.start, self._format.end
        body, found, rest = self._withheld.partition(end) if end else (self._withheld, "", "")
        if self._call_in_thinking and self._markers.thinking:
            thought, ended, _ = body.partition(self._markers.thinking[1])
            if ended:  # the thinking has only mentioned the marker
                self._withheld = self._withheld[len(thought) :]
                return self._thinking_of_no_call(start + thought)
        if not found:
            return OutputPiece()
        self._section, self._withheld = _Section.TEXT, rest
        return self._calls_or_else(body, start + body + end)

    def _calls_or_else(self, body: str, as_text: str) -> OutputPiece:
        calls = parse_tool_calls(body, self._tools, self._format.parser)
        if self._call_in_thinking and not are_all_offered(calls, self._tools):
            return self._thinking_of_no_call(as_text)
        if not calls:
            return self._text(as_text)
        # Beside a schema, calls have no markers, so one that follows is found only at the start of the text.
        self._at_start = self._at_start and self._has_schema and self._call_in_thinking
        if self._call_in_thinking:
            self._section, self._call_in_thinking = _Section.THINKING, False
        self.has_tool_calls = self._skip_whitespace = True
        return OutputPiece(tool_calls=calls)

    def _thinking_of_no_call(self, text: str) -> OutputPiece:
        """Return a supposed call as thinking, because its `text` turned out not to be a call. The thinking
        continues.
        """
        self._section, self._call_in_thinking = _Section.THINKING, False
        self._skip_whitespace = False
        return OutputPiece(thinking=self._before_call + text)

    def _bare_calls_or_text(self, text: str) -> OutputPiece:
        calls = self._parse_bare_calls(text, self._tools)
        if are_all_offered(calls, self._tools):
            self.has_tool_calls = True
            return OutputPiece(tool_calls=calls)
        return self._text(text)

    def _text(self, text: str) -> OutputPiece:
        if text:
            self._at_start = self._skip_whitespace = False
        return OutputPiece(text)
