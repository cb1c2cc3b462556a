"""Split an answer in OpenAI's Harmony format, which gpt-oss writes, into thinking, tool calls and text. Pure.

An answer is a sequence of messages, whose parts are separated by special tokens:

    <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…<|return|>
    <|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{…}<|call|>

The recipient may also come before the channel. Muse Spark's format has no channels, and its calls are
enclosed in markers:

     to=self<|message|>…<|eom|><|start|>assistant to=user<|message|>…<|eot|>

Special tokens are recognized by their ids, not by their text, because a model that explains the format writes
the same words with ordinary tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any

from mlx_server.engine.generation.harmony_tokens import HarmonyTokens
from mlx_server.engine.generation.output_parser import TAGGED_JSON, CallFormat, OutputPiece, ToolChoice
from mlx_server.engine.generation.tool_calls import are_all_offered, parse_tool_calls
from mlx_server.protocol import ToolCall

_RECIPIENT = re.compile(r"to=(\S+)")
_NO_TOOLS = ("assistant", "user", "all", "commentary", "self")
"""Recipients of messages that are not tools."""
_BETWEEN_MESSAGES = "\n\n"
"""What separates two messages of the same section (thinking or text) when they are joined."""


class _Section(Enum):
    HEADER = auto()
    THINKING = auto()
    TEXT = auto()
    CALL = auto()


class HarmonyParser:
    """Parses one answer in OpenAI's Harmony format or in Muse Spark's similar one; `tokens` has the special
    tokens of that format. The parser has the interface `AnswerParser`.

    The caller passes the answer's text to `push`, and each token that is in the attribute `control_tokens` to
    `push_control`.

    `tools` are the tools that the client offers. With `tool_choice` "none", calls remain text. With "auto", a
    message to a tool is a call. With "required", visible text that is JSON of calls to offered tools is a
    call, too. `call_format` describes the calls of Muse Spark's format: the markers around a call, and the
    parser of the text between them. With `has_schema`, the visible text must match the client's schema, so
    the preamble that a model writes before its calls is returned as thinking.

    Text without any header is visible text. A call that cannot be parsed, for example because its arguments
    are not a JSON object, is returned as visible text.
    """

    def __init__(
        self,
        tokens: HarmonyTokens,
        tool_choice: ToolChoice = "none",
        tools: Sequence[dict[str, Any]] = (),
        call_format: CallFormat = TAGGED_JSON,
        has_schema: bool = False,
    ) -> None:
        self._call_format = call_format  # of the calls of a format without channels
        self._tokens, self._tool_choice, self._tools = tokens, tool_choice, tuple(tools)
        self._has_schema = has_schema
        self.control_tokens = tokens.controls
        self.has_tool_calls = False
        self._section = _Section.HEADER
        self._role, self._channel = "", ""  # the header before <|channel|>, and after it
        self._has_channel = self._had_message = False
        self._call, self._recipient = "", ""
        self._written: dict[_Section, bool] = {}  # sections with text; False: a message has ended since

    @property
    def is_thinking(self) -> bool:
        """Return whether the answer so far ends inside the model's thinking."""
        return self._section is _Section.THINKING

    @property
    def is_in_header(self) -> bool:
        """Return whether the answer so far ends before the content of a message: between two messages, within
        a message's header, or because it is empty.
        """
        return self._section is _Section.HEADER

    def begin_after(self, prompt: Sequence[int], decode: Callable[[Sequence[int]], str]) -> None:
        """Bring the parser into the state that it has at the end of `prompt`, which ends after
        `<|start|>assistant`, or within a message that the answer continues. If `prompt` has no token
        `<|start|>`, do nothing. `decode` turns token ids into text.
        """
        try:
            start = len(prompt) - 1 - list(reversed(prompt)).index(self._tokens.start)
        except ValueError:
            return
        text: list[int] = []
        for token in prompt[start:]:
            if token in self.control_tokens:
                self.push(decode(text) if text else "")
                self.push_control(token)
                text = []
            else:
                text.append(token)
        self.push(decode(text) if text else "")
        self._call, self._written = "", {}
        self._had_message = not self.is_in_header

    def push(self, text: str) -> OutputPiece:
        """Append `text` to the answer, and return what can be sent to the client now. `text` is the text of
        ordinary tokens; special tokens (`control_tokens`) are passed to `push_control` instead.

        Nothing is returned of a message's header. A message that may be a tool call is withheld until it has
        ended, and is then returned by `push_control` or `flush`.
        """
        if not text:
            return OutputPiece()
        if self._section is _Section.HEADER:
            if self._has_channel:
                self._channel += text
                return OutputPiece()
            self._role += text
            if _may_be_role(self._role):
                return OutputPiece()
            text = self._role.lstrip().removeprefix("assistant").lstrip()
            self._open_message()
        if self._section is _Section.CALL:
            self._call += text
            return OutputPiece()
        return self._written_piece(text)

    def push_control(self, token: int) -> OutputPiece:
        """Append one of `control_tokens` to the answer, and return the part of the answer that can be
        released.
        """
        if token == self._tokens.message:
            if self._section is _Section.HEADER:
                self._open_message()
            return OutputPiece()
        if token == self._tokens.constrain:
            self._channel += " "  # the token ends the recipient's name
            return OutputPiece()
        released = self._close_message()
        if token == self._tokens.channel:
            self._has_channel = True
        else:
            self._role, self._channel, self._has_channel = "", "", False
        return released

    def flush(self) -> OutputPiece:
        """End the answer, and return everything that was withheld. An incomplete header is dropped, unless it
        is the whole answer, which is then returned as text.
        """
        if self._section is _Section.HEADER and not self._had_message and not self._has_channel:
            return OutputPiece(self._role.lstrip().removeprefix("assistant").lstrip())
        return self._close_message()

    def _open_message(self) -> None:
        recipient = _recipient(f"{self._role} {self._channel}")
        self._recipient = "" if recipient in _NO_TOOLS else recipient.removeprefix("functions.")
        self._call, self._had_message = "", True
        may_call = self._tool_choice != "none"
        if may_call and self._recipient:
            self._section = _Section.CALL
        elif self._hides_message_to(recipient):
            self._section = _Section.THINKING
        else:
            self._section = _Section.CALL if self._tool_choice == "required" else _Section.TEXT

    def _hides_message_to(self, recipient: str) -> bool:
        """Return whether a message to `recipient` with the header that has been read is thinking."""
        is_hidden_preamble = self._has_schema and _is_of_preamble(self._channel)
        return recipient == "self" or self._channel.strip().startswith("analysis") or is_hidden_preamble

    def _close_message(self) -> OutputPiece:
        section, self._section = self._section, _Section.HEADER
        if section is not _Section.HEADER:
            self._channel, self._has_channel = "", False
            self._role = ""
        if section is not _Section.CALL:
            self._written = dict.fromkeys(self._written, False)
            return OutputPiece()
        body, self._call = self._call, ""
        if calls := self._calls_in(body):
            self.has_tool_calls = True
            return OutputPiece(tool_calls=calls)
        self._section = _Section.TEXT
        released = self._written_piece(body) if body else OutputPiece()
        self._section = _Section.HEADER
        self._written = dict.fromkeys(self._written, False)
        return released

    def _calls_in(self, body: str) -> tuple[ToolCall, ...]:
        if self._tool_choice == "required":  # a grammar has made the model write the call's name, too
            calls = parse_tool_calls(body, self._tools)
            if are_all_offered(calls, self._tools):
                return calls
        if not self._recipient:
            return ()
        if not self._tokens.has_channels:
            start, end = self._call_format.start, self._call_format.end
            marked = body.strip().removeprefix(start).removesuffix(end)
            return parse_tool_calls(marked, self._tools, self._call_format.parser)
        found = {"name": self._recipient, "arguments": body.strip() or "{}"}
        return parse_tool_calls(body, self._tools, lambda text, tools: found)

    def _written_piece(self, text: str) -> OutputPiece:
        if self._written.get(self._section) is False:
            text = _BETWEEN_MESSAGES + text
        self._written[self._section] = True
        return OutputPiece(thinking=text) if self._section is _Section.THINKING else OutputPiece(text)


def is_header_without_grammar(header: str) -> bool:
    """Return whether `header`, the part of a message's header before or after `<|channel|>`, shows that the
    message is a call or the preamble that a model writes before its calls. The grammar of an answer with a
    schema does not apply to them.
    """
    return _recipient(header) not in ("", *_NO_TOOLS) or _is_of_preamble(header)


def _is_of_preamble(channel: str) -> bool:
    return channel.strip().startswith("commentary")


def _recipient(header: str) -> str:
    found = _RECIPIENT.search(header)
    return found[1] if found else ""


def _may_be_role(text: str) -> bool:
    """Return whether `text` can be the start of a header: `assistant`, optionally followed by a recipient."""
    rest = text.lstrip()
    if "assistant".startswith(rest):
        return True
    recipient = rest.removeprefix("assistant").lstrip()
    return "to=".startswith(recipient[:3]) or not recipient
