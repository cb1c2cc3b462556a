"""Check the messages and tools of a chat, and convert messages to the form that chat templates
expect. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from mlx_server.engine.errors import RequestError
from mlx_server.protocol import Generate

MAX_NESTING = 200
"""How deep messages, tools and template variables may be nested. transformers copies them recursively, which
fails at some 450 levels."""


def normalize_messages(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return copies of `messages` in the form that templates expect. Missing content becomes an empty string;
    content that is a string or a list of parts does not change. Arguments of tool calls that are JSON text
    are parsed, so that they become objects.

    Raises RequestError, which names the field, if a message is invalid.
    """
    return [_normalize_message(message, f"messages.{i}") for i, message in enumerate(messages)]


def _normalize_message(message: Any, field: str) -> dict[str, Any]:
    normalized = dict(_checked(message, dict, field))
    content = message.get("content") or ""
    if not isinstance(content, (str, list)):
        raise _wrong_type(f"{field}.content", "a string or a list of parts", content)
    normalized["content"] = content
    calls = normalized.pop("tool_calls", None)  # some templates take an empty list for calls
    if calls:
        if not isinstance(calls, (list, tuple)):
            raise _wrong_type(f"{field}.tool_calls", "a list", calls)
        normalized["tool_calls"] = [
            _normalize_call(call, f"{field}.tool_calls.{i}") for i, call in enumerate(calls)
        ]
    return normalized


def _normalize_call(call: Any, field: str) -> dict[str, Any]:
    function = dict(_checked(_checked(call, dict, field).get("function") or {}, dict, f"{field}.function"))
    _checked(function.get("name") or "", str, f"{field}.function.name")
    if isinstance(function.get("arguments"), str):
        try:
            function["arguments"] = json.loads(function["arguments"])
        except (ValueError, RecursionError) as error:
            name = str(function.get("name"))[:100]
            raise RequestError(
                "invalid_request", f"{field}.function.arguments of tool call {name!r} is not JSON: {error}"
            ) from error
    return {"type": "function", **call, "function": function}


def check_tools(tools: Iterable[Any]) -> None:
    """Raise RequestError, which names the field, if a tool is not an object, or its function is not an object
    with a name.
    """
    for i, tool in enumerate(tools):
        function = _checked(tool, dict, f"tools.{i}").get("function")
        if function is not None:
            name = _checked(function, dict, f"tools.{i}.function").get("name")
            _checked(name, str, f"tools.{i}.function.name")


def check_nesting(op: Generate) -> None:
    """Raise RequestError if messages, tools or template variables are nested deeper than
    MAX_NESTING levels.
    """
    for field, value in (("messages", op.messages), ("tools", op.tools), ("template variables", op.template)):
        level: list[Any] = [value]
        for _ in range(MAX_NESTING):
            level = [child for item in level for child in _children(item)]
            if not level:
                break
        else:
            raise RequestError(
                "invalid_request", f"The {field} are nested deeper than {MAX_NESTING} levels; flatten them."
            )


def _children(item: Any) -> Iterable[Any]:
    if isinstance(item, dict):
        return item.values()
    return item if isinstance(item, (list, tuple)) else ()


def _checked(value: Any, kind: type, field: str) -> Any:
    if not isinstance(value, kind):
        raise _wrong_type(field, "an object" if kind is dict else "a string", value)
    return value


_JSON_NAMES = {str: "a string", bool: "a boolean", list: "a list", tuple: "a list", dict: "an object"}


def _wrong_type(field: str, expected: str, value: Any) -> RequestError:
    found = "missing" if value is None else f"{_JSON_NAMES.get(type(value), 'a number')}"
    return RequestError("invalid_request", f"{field} must be {expected}, and it is {found}.")
