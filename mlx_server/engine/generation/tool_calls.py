"""What a model wrote as a tool call, as a name and arguments. Pure: a model's own parser is handed in."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from mlx_server.protocol import ToolCall

Parser = Callable[[str, Any], Any]
"""mlx-lm's: a call's text and the tools, to one call or a list of them; raises what it likes."""

_KEYS = ('"name"', '"function"', '"type"', '"id"', '"arguments"', '"parameters"')


def parse(text: str, tools: Sequence[dict[str, Any]], parser: Parser | None = None) -> tuple[ToolCall, ...]:
    """The calls in `text`, by the model's own parser or as JSON; none where there is no whole call in it."""
    if parser is not None:
        try:
            if calls := _calls(parser(text, list(tools))):
                return calls
        except Exception:  # a call cut off or misspelt breaks a parser anywhere; then it is no call
            pass
    try:
        return _calls(json.loads(text.strip()))
    except ValueError:
        return ()


def known(calls: tuple[ToolCall, ...], tools: Sequence[dict[str, Any]]) -> bool:
    """Whether every call is to one of `tools`: JSON without a mark might mean anything."""
    names = {tool["function"]["name"] for tool in tools}
    return bool(calls) and all(call.name in names for call in calls)


def may_become_call(text: str) -> bool:
    """Whether `text`, the start of an answer, may be the start of a call in bare JSON."""
    rest = text.lstrip()
    if rest.startswith("["):
        rest = rest[1:].lstrip()
    if not rest:
        return True
    if not rest.startswith("{"):
        return False
    key = rest[1:].lstrip()
    return not key or any(word.startswith(key) or key.startswith(word) for word in _KEYS)


def _calls(found: Any) -> tuple[ToolCall, ...]:
    items = found if isinstance(found, list) else [found]
    calls = tuple(call for call in map(_call, items) if call is not None)
    return calls if len(calls) == len(items) else ()


def _call(found: Any) -> ToolCall | None:
    if not isinstance(found, dict):
        return None
    if isinstance(found.get("function"), dict):
        found = found["function"]
    name = found.get("name")
    arguments = found.get("arguments", found.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return None
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return None
    return ToolCall(name, arguments)
