"""Decide which tools a model is offered, and which of its calls are accepted. Pure.

Only functions that the client defines and runs can be served. Tools of types that run elsewhere (web search,
…) are left out, unless the client requires a call to one; then the request is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from mlx_server.gateway.dialects.answer_parts import AnswerPart, AnswerToolCall
from mlx_server.gateway.dialects.bodies import not_supported
from mlx_server.gateway.dialects.tools import call_schema
from mlx_server.gateway.json_text import json_text

Tool = dict[str, Any]
"""A function in the form that chat templates expect: `{"type": "function", "function": {"name", …}}`."""

TEXT_INPUT = "input"
"""The name of the only argument of a custom tool, whose input is a text instead of an object."""


@dataclass(frozen=True)
class CallRules:
    """The rules for the tool calls of an answer.

    `allowed` are the functions that may be called (None: all); a call of any other function becomes text of
    the answer. Calls beyond `most_calls` (None: any number) are dropped. `custom` names the tools whose input
    is plain text.
    """

    allowed: frozenset[str] | None = None
    most_calls: int | None = None
    custom: frozenset[str] = frozenset()


NO_RULES = CallRules()
"""Rules that accept every call."""


@dataclass(frozen=True)
class ChosenTools:
    """The functions that the template describes to the model, and the rules for calling them.

    If `call_schema` is set, the answer must be a call that matches this JSON schema. `skipped` are the types
    of the tools that are not served.
    """

    functions: tuple[Tool, ...] | None = None
    call_schema: dict[str, Any] | None = None
    rules: CallRules = NO_RULES
    skipped: tuple[str, ...] = ()


def chosen_tools(
    functions: Sequence[Tool],
    mode: Literal["none", "auto", "required"],
    rules: CallRules = NO_RULES,
    skipped: Sequence[str] = (),
    *,
    name: str | None = None,
) -> ChosenTools:
    """Return which of `functions` the template describes to the model, and how the model may call them, for a
    tool choice of this `mode`. With the mode `none`, no function is described, and `name` is ignored. With
    any other mode, the function called `name` must be called if `name` is given.

    `rules` are returned in the result. Functions that `rules.allowed` excludes are described too, so that the
    cached beginning of the prompt can be used. `skipped` are the types of the tools that the client offers
    and this server does not support; they are returned in the result too.

    Raises BadRequest if a call is required, but no function that may be called is offered (then the message
    names the `skipped` types), the function `name` is not offered, or a function's parameters are nested too
    deeply.
    """
    skipped = tuple(dict.fromkeys(skipped))
    if mode == "none":
        return ChosenTools(skipped=skipped, rules=rules)
    chosen = ChosenTools(tuple(functions) or None, None, rules, skipped)
    if mode == "auto" and name is None:
        return chosen
    callable_ = [
        tool
        for tool in functions
        if rules.allowed is None or tool["function"]["name"] in rules.allowed or name is not None
    ]
    if not callable_ and skipped:
        named = ", ".join(skipped)
        not_supported("tool_choice", f"a call is required, and tools of type {named} are not served here")
    return replace(chosen, call_schema=call_schema(callable_, name))


def custom_function(name: str, description: str | None, text_format: Any = None) -> Tool:
    """Return a custom tool, whose input is a text, as a function with one argument. If `text_format` has a
    grammar for the text, the description of the function includes the grammar.
    """
    words = [description] if description else []
    match text_format:
        case {"type": "grammar", "definition": str(definition), **more}:
            words.append(f"The input follows this {more.get('syntax') or 'lark'} grammar:\n{definition}")
        case {"type": "grammar", "grammar": {"definition": str(definition), **more}}:
            words.append(f"The input follows this {more.get('syntax') or 'lark'} grammar:\n{definition}")
    parameters = {
        "type": "object",
        "properties": {TEXT_INPUT: {"type": "string"}},
        "required": [TEXT_INPUT],
        "additionalProperties": False,
    }
    function = {"name": name, "description": "\n\n".join(words), "parameters": parameters}
    return {"type": "function", "function": {key: value for key, value in function.items() if value}}


def custom_input(call: AnswerToolCall) -> str:
    """Return the input text of a call to a custom tool. The model was offered the tool as a function whose
    only argument is the text `input`. If the call lacks this argument, or it is not a text, return all
    arguments of the call as JSON.
    """
    given = call.arguments.get(TEXT_INPUT)
    return given if isinstance(given, str) else json_text(call.arguments)


class CallFilter:
    """Applies `rules` to the tool calls of one answer. A call of a function that may not be called becomes
    text of the answer, and calls beyond the permitted number are dropped. The parts of the answer must be
    passed to `apply` in their order.
    """

    def __init__(self, rules: CallRules) -> None:
        self._rules = rules
        self._calls = 0

    def apply(self, part: AnswerPart) -> AnswerPart:
        """Return `part` with only the tool calls that the rules accept, numbered anew. If the part ends the
        answer with the reason `tool_calls`, but no call of the answer was accepted, the reason becomes
        `stop`.
        """
        if not part.tool_calls and part.done is None:
            return part
        calls, texts = [], [part.text]
        for call in part.tool_calls:
            if self._rules.allowed is not None and call.name not in self._rules.allowed:
                texts.append(json_text({"name": call.name, "arguments": call.arguments}))
            elif self._rules.most_calls is None or self._calls < self._rules.most_calls:
                calls.append(self._as_offered(call))
                self._calls += 1
        done = part.done
        if done is not None and done.reason == "tool_calls" and not self._calls:
            done = msgspec.structs.replace(done, reason="stop")
        return msgspec.structs.replace(part, text="".join(texts), tool_calls=tuple(calls), done=done)

    def _as_offered(self, call: AnswerToolCall) -> AnswerToolCall:
        """Return the call with its index among the accepted calls, and with its input text if the tool is a
        custom one.
        """
        text = custom_input(call) if call.name in self._rules.custom else None
        return msgspec.structs.replace(call, index=self._calls, custom_input=text)
