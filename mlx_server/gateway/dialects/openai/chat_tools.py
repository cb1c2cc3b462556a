"""Interpret `tools` and `tool_choice` of a chat completion, and their older form `functions`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from mlx_server.gateway.dialects.bodies import not_supported
from mlx_server.gateway.dialects.chat.tool_choice import (
    CallRules,
    ChosenTools,
    Tool,
    chosen_tools,
    custom_function,
)
from mlx_server.gateway.dialects.tools import check_tool
from mlx_server.gateway.errors import BadRequest, quoted

Choice = str | dict[str, Any] | None
Mode = Literal["none", "auto", "required"]
_MODES: dict[str, Mode] = {"none": "none", "auto": "auto", "required": "required", "any": "required"}
"""The mode for each text that `tool_choice` may be. `any` is Mistral's word for `required`."""


def offered_tools(
    tools: Sequence[dict[str, Any]] | None, choice: Choice, *, parallel: bool = True
) -> ChosenTools:
    """Return which of a body's `tools` the model is offered, and how it may call them. `choice` is the body's
    `tool_choice`; None means `auto`. Tools of unsupported types are not offered. Without `parallel`, at most
    one call per answer is accepted. Raises BadRequest if a tool or `choice` is malformed, or if `choice`
    requires a call that no offered tool can serve.
    """
    served: list[Tool] = []
    custom, skipped = set[str](), list[str]()
    for number, tool in enumerate(tools or ()):
        match tool.get("type", "function"):
            case "function":
                check_tool(tool, number)
                served.append(tool)
            case "custom":
                served.append(_custom(tool, number))
                custom.add(served[-1]["function"]["name"])
            case other:
                skipped.append(str(other)[:80])
    rules = CallRules(_allowed_names(choice), None if parallel else 1, frozenset(custom))
    mode, name = _mode(choice)
    return chosen_tools(served, mode, rules, skipped, name=name)


def _custom(tool: dict[str, Any], number: int) -> Tool:
    """Return the function tool that stands for a custom tool. Its only argument, the string `input`, is the
    text that the custom tool takes. A grammar in the tool's `format` becomes part of the description. Raises
    BadRequest if the tool has no name; the error contains `number`, the tool's index in the body's tools.
    """
    given = tool.get("custom")
    given = given if isinstance(given, dict) else tool
    name, description = given.get("name"), given.get("description")
    if not isinstance(name, str) or not name:
        raise BadRequest("invalid_request", f"tools.{number}.custom.name: is missing")
    return custom_function(name, description if isinstance(description, str) else None, given.get("format"))


def _mode(choice: Choice) -> tuple[Mode, str | None]:
    """Return how the answer may use tools, and the name of the tool that must be called (None if there is no
    such tool). Raises BadRequest if `choice` is none of the known forms.
    """
    match choice:
        case None:
            return "auto", None
        case str() if choice in _MODES:
            return _MODES[choice], None
        case {"type": "function", "function": {"name": str(name)}} if name:
            return "required", name
        case {"type": "custom", "custom": {"name": str(name)}} if name:
            return "required", name
        case {"type": "allowed_tools"} if isinstance(choice, dict):
            mode = _allowed_tools(choice).get("mode") or "auto"
            if mode in ("auto", "required"):
                return _MODES[mode], None
            raise BadRequest("invalid_request", "tool_choice.allowed_tools.mode: give `auto` or `required`")
        case {"type": str(tool_type)} if tool_type not in ("function", "custom"):
            not_supported(
                "tool_choice",
                f"the tool type {quoted(tool_type)} is not served here; offer a function instead",
            )
    message = "tool_choice: give `auto`, `none`, `required`, or a function's name as OpenAI has it"
    raise BadRequest("invalid_request", message)


def _allowed_tools(choice: dict[str, Any]) -> dict[str, Any]:
    """Return the object with the fields `mode` and `tools` from `choice`, a `tool_choice` of the type
    `allowed_tools`. In the Responses API, this object is `choice` itself; in the chat API, it is the object
    in the field `allowed_tools` of `choice`.
    """
    inner = choice.get("allowed_tools")
    return inner if isinstance(inner, dict) else choice


def _allowed_names(choice: Choice) -> frozenset[str] | None:
    """Return the names of the tools to which `choice`, the body's `tool_choice`, limits the model's calls;
    None if `choice` is not of the type `allowed_tools`. Raises BadRequest if the tools in `choice` are not a
    list of objects.
    """
    if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
        return None
    listed = _allowed_tools(choice).get("tools")
    if not isinstance(listed, list) or not all(isinstance(tool, dict) for tool in listed):
        raise BadRequest("invalid_request", "tool_choice.allowed_tools.tools: give a list of tools")
    names = (_name_of(tool) for tool in listed)
    return frozenset(name for name in names if isinstance(name, str))


def _name_of(tool: dict[str, Any]) -> Any:
    inner = tool.get(str(tool.get("type")))
    return (inner if isinstance(inner, dict) else tool).get("name")


def tools_of_functions(functions: Sequence[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Return the value of OpenAI's older field `functions` in the form of the field `tools`; None if it is
    None.
    """
    return None if functions is None else [{"type": "function", "function": each} for each in functions]


def choice_of_function_call(choice: Choice) -> Choice:
    """Return the value of OpenAI's older field `function_call` in the form of the field `tool_choice`."""
    return {"type": "function", "function": choice} if isinstance(choice, dict) else choice
