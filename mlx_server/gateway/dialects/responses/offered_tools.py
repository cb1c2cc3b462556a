"""Interpret `tools` and `tool_choice`: which functions the model is offered, and how it may call them. Pure.

Functions and custom tools (whose input is a text) are served; the client runs them itself. Codex and other
clients also offer tools that OpenAI runs (web_search, …) or that group others (namespace). These are skipped,
unless the client requires a call to one; then the request is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlx_server.gateway.dialects.bodies import not_supported
from mlx_server.gateway.dialects.chat.tool_choice import custom_function
from mlx_server.gateway.dialects.tools import call_schema, checked_tools
from mlx_server.gateway.errors import BadRequest

Tool = dict[str, Any]
MODES = ("none", "auto", "required")


@dataclass(frozen=True)
class OfferedTools:
    """The functions in the form that chat templates expect, and how the model may call them.

    If `call_schema` is set, the answer must be a call that matches this JSON schema. A call to a function
    that is not `allowed` (None: all are) becomes text. `custom` names the tools whose input is a text.
    `skipped` are the types of the tools that are not served. `shown` and `choice` are `tools` and
    `tool_choice` as the response object shows them.
    """

    functions: tuple[Tool, ...] | None
    shown: tuple[Tool, ...]
    choice: str | dict[str, Any]
    call_schema: dict[str, Any] | None = None
    allowed: frozenset[str] | None = None
    skipped: tuple[str, ...] = ()
    custom: frozenset[str] = frozenset()


def offered_tools(tools: Sequence[Tool] | None, choice: str | dict[str, Any] | None) -> OfferedTools:
    """Return which of a body's `tools` the model is offered, and how it may call them. `choice` is the body's
    `tool_choice`; None means `auto`. Raises BadRequest if a tool or `choice` is malformed, or if `choice`
    requires a call that no offered tool can serve.
    """
    given = [(tool, _function(tool, number)) for number, tool in enumerate(tools or ()) if _is_served(tool)]
    custom = frozenset(made["function"]["name"] for tool, made in given if tool.get("type") == "custom")
    return replace(_chosen(tools, given, choice), custom=custom)


def _chosen(
    tools: Sequence[Tool] | None, given: Sequence[tuple[Tool, Tool]], choice: str | dict[str, Any] | None
) -> OfferedTools:
    """Return the tools that the model is offered under the tool choice. `tools` are all tools in the body;
    `given` pairs each one that this server supports with its form as a function. Raises BadRequest if the
    choice or a function is wrong.
    """
    skipped = tuple(dict.fromkeys(_type_of(tool) for tool in tools or () if not _is_served(tool)))
    functions = checked_tools([made for _, made in given]) or ()
    shown = tuple(_shown(tool, made["function"]) for tool, made in given)
    match choice:
        case None | "auto":
            return OfferedTools(functions or None, shown, "auto", skipped=skipped)
        case "none":
            return OfferedTools(None, shown, "none", skipped=skipped)
        case "required":
            _check_any(functions, skipped)
            return OfferedTools(functions, shown, choice, call_schema(functions), skipped=skipped)
        case {"type": "function" | "custom" as tool_type} if isinstance(choice, dict):
            inner = choice.get(tool_type)
            name = choice.get("name") or (inner.get("name") if isinstance(inner, dict) else None)
            if not isinstance(name, str) or not name:
                raise BadRequest("invalid_request", "tool_choice.name: is missing", param="tool_choice")
            named = {"type": tool_type, "name": name}
            return OfferedTools(functions, shown, named, call_schema(functions, name), skipped=skipped)
        case {"type": "allowed_tools"} if isinstance(choice, dict):
            return _allowed(functions, shown, choice, skipped)
        case {"type": str(tool_type)}:
            not_supported(
                "tool_choice",
                f"the tool type {tool_type[:80]!r} is not served here, so that no answer can use it; offer a "
                "function of your own",
            )
    message = (
        "tool_choice: give `auto`, `none`, `required`, a function, or `allowed_tools` as OpenAI has them"
    )
    raise BadRequest("invalid_request", message, param="tool_choice")


def _allowed(
    functions: tuple[Tool, ...], shown: tuple[Tool, ...], choice: dict[str, Any], skipped: tuple[str, ...]
) -> OfferedTools:
    """Return the tools that the model is offered if `choice`, an object of the type `allowed_tools`, lists
    the tools that may be called. All `functions` stay in the prompt, so that the cached beginning of the
    prompt can be used; a call to a function that is not listed becomes text. With the mode `none`, the prompt
    has no functions.

    `shown` are the same tools as the response object shows them. `skipped` are the types of the body's
    unsupported tools, which the result contains too; if `choice` lists such a tool, that has no effect.
    Raises BadRequest if `choice` is malformed, or if it requires a call and lists no function that is
    offered.
    """
    mode, listed = choice.get("mode") or "auto", choice.get("tools")
    if mode not in MODES:
        raise BadRequest(
            "invalid_request", "tool_choice.mode: give `auto` or `required`", param="tool_choice"
        )
    if not isinstance(listed, list) or not all(isinstance(tool, dict) for tool in listed):
        raise BadRequest("invalid_request", "tool_choice.tools: give a list of tools", param="tool_choice")
    names = [tool.get("name") for tool in listed if _is_served(tool)]
    allowed = frozenset(name for name in names if isinstance(name, str))
    permitted = tuple(tool for tool in functions if tool["function"]["name"] in allowed)
    echoed = {"type": "allowed_tools", "mode": mode, "tools": [_reference(name) for name in sorted(allowed)]}
    if mode == "none":
        return OfferedTools(None, shown, echoed, skipped=skipped)
    if mode == "required":
        _check_any(permitted, tuple(_type_of(tool) for tool in listed if not _is_served(tool)))
        return OfferedTools(functions, shown, echoed, call_schema(permitted), allowed, skipped)
    return OfferedTools(functions or None, shown, echoed, None, allowed, skipped)


def _check_any(functions: Sequence[Tool], skipped: Sequence[str]) -> None:
    """Raise BadRequest if no tool can be called although the request requires a call: `functions`, the tools
    that the model may call, is empty, and `skipped`, the types of the tools that this server does not
    support, is not. If both are empty, `call_schema` raises the error.
    """
    if not functions and skipped:
        named = ", ".join(dict.fromkeys(name[:80] for name in skipped))
        not_supported("tool_choice", f"a call is required, and tools of type {named} are not served here")


def _is_served(tool: Tool) -> bool:
    return tool.get("type", "function") in ("function", "custom")


def _type_of(tool: Tool) -> str:
    return str(tool.get("type"))[:80]


def _function(tool: Tool, number: int) -> Tool:
    """Return the tool in the form that chat templates expect. The client may send the function's fields in
    the tool itself, or as in chat completions in an object inside the tool (`function` or `custom`). `number`
    is the tool's index in the body's `tools`, for error messages. Raises BadRequest if a field is missing or
    wrong.
    """
    nested = tool.get(str(tool.get("type", "function")))
    given = nested if isinstance(nested, dict) else tool
    assert isinstance(given, dict)
    name = given.get("name")
    if not isinstance(name, str) or not name:
        raise BadRequest("invalid_request", f"tools.{number}.name: is missing", param=f"tools.{number}.name")
    if not isinstance(given.get("description"), str | None):
        raise BadRequest("invalid_request", f"tools.{number}.description: should be a string", param="tools")
    if tool.get("type") == "custom":
        return custom_function(name, given.get("description"), given.get("format"))
    if not isinstance(given.get("parameters"), dict | None):
        message = f"tools.{number}.parameters: should be a JSON schema"
        raise BadRequest("invalid_request", message, param=f"tools.{number}.parameters")
    function = {"name": name, "description": given.get("description"), "parameters": given.get("parameters")}
    return {
        "type": "function",
        "function": {key: value for key, value in function.items() if value is not None},
    }


def _shown(tool: Tool, function: Tool) -> Tool:
    """Return the client's `tool` as the response object shows it. `function` is the tool in the form of a
    function.
    """
    if tool.get("type") == "custom":
        fields = {field: tool.get(field) for field in ("type", "name", "description", "format")}
        return {field: value for field, value in fields.items() if value is not None}
    shown = {"type": "function", "name": function["name"], "description": function.get("description")}
    return shown | {"parameters": function.get("parameters"), "strict": None}


def _reference(name: str) -> Tool:
    return {"type": "function", "name": name}
