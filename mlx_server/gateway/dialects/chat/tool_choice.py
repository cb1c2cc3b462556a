"""Decide which tools a model is offered, and which of its calls are accepted. Pure.

A tool is a function of the client's own. Tools of types that run elsewhere (web search, …) cannot be served:
they are left out, unless the client insists on one.
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
"""A function in the form that chat templates take: `{"type": "function", "function": {"name", …}}`."""

TEXT_INPUT = "input"
"""The only argument of a custom tool, which takes a text instead of an object."""


@dataclass(frozen=True)
class CallRules:
    """How an answer may call tools.

    A call of a function that is not `allowed` (None: all are) is text, and one beyond `most_calls` (None: any
    number) is dropped. `custom` names the tools whose argument is a plain text.
    """

    allowed: frozenset[str] | None = None
    most_calls: int | None = None
    custom: frozenset[str] = frozenset()


NO_RULES = CallRules()
"""Every call counts."""


@dataclass(frozen=True)
class ChosenTools:
    """The functions that the template describes to the model, and how the answer may call them.

    `call_schema` is the JSON schema of a call that the answer must be, or None. `skipped` are the types of
    the tools that are not served.
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
    """Return the chosen tools for a `mode` of tool choice; with `name`, that function must be called. Raises
    BadRequest. All functions stay in the prompt even if only some are `allowed`, so that its cached beginning
    can be used.
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
    """Return a custom tool, which takes a text, as a function with one argument.

    A grammar of the text, as `text_format` may have it, is described to the model.
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
    """Return the text that a custom tool is called with; arguments that are not a text are
    written as JSON.
    """
    given = call.arguments.get(TEXT_INPUT)
    return given if isinstance(given, str) else json_text(call.arguments)


class CallFilter:
    """Applies the rules to the parts of one answer, in their order."""

    def __init__(self, rules: CallRules) -> None:
        self._rules = rules
        self._calls = 0

    def apply(self, part: AnswerPart) -> AnswerPart:
        """Return the part with only the calls that the rules accept.

        If no call of the whole answer is accepted, the reason for its end becomes `stop`.
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
        """Return the call with its number among the accepted calls, and with the text of a custom tool."""
        text = custom_input(call) if call.name in self._rules.custom else None
        return msgspec.structs.replace(call, index=self._calls, custom_input=text)
