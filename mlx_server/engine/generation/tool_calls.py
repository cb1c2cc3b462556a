"""Parse the tool calls, each a name and arguments, that a model has written. Pure: the caller passes the
model's parser.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

from mlx_server.protocol import ToolCall

ToolParser = Callable[[str, Any], Any]
"""The interface of mlx-lm's parsers. A parser takes the text of a call and the offered tools, and returns one
call or a list of calls, each a dict. It may raise any exception if it cannot parse the text."""

MAX_NESTING = 100
"""How deep a call's arguments may be nested. JSON parsers of other languages allow 128 levels or more."""

CALL_KEYS = ('"name"', '"function"', '"type"', '"id"', '"arguments"', '"parameters"')
"""The keys, in quotes, with which models begin a call that they write as JSON."""
_BEGINNING_CHARS = 2000
"""Beside a schema, an answer whose beginning up to this length may be a call is withheld to its end."""
_KEYS_BESIDE_A_SCHEMA = {"name", "arguments"}


def parse_tool_calls(
    text: str, tools: Sequence[dict[str, Any]], parser: ToolParser | None = None
) -> tuple[ToolCall, ...]:
    """Return the tool calls in `text`, parsed by `parser` or, if that raises or finds no calls, as JSON.
    Return () if the text is not JSON either, or if the JSON contains anything other than calls.

    `tools` are the tools that the request offers. `parser` may need them to convert arguments; calls of other
    tools are returned, too.
    """
    if parser is not None:
        try:
            if calls := _to_calls(parser(text, list(tools))):
                return calls
        except Exception:  # a truncated or misspelled call can break a parser anywhere; it is not a call then
            pass
    try:
        return _to_calls(json.loads(text.strip()))
    except (ValueError, RecursionError):
        return ()


def are_all_offered(calls: tuple[ToolCall, ...], tools: Sequence[dict[str, Any]]) -> bool:
    """Return whether `calls` is not empty, and each call names one of `tools`. Only then is JSON without
    markers taken for calls, since it could be ordinary text.
    """
    names = _names(tools)
    return bool(calls) and all(call.name in names for call in calls)


def _names(tools: Sequence[dict[str, Any]]) -> set[Any]:
    return {tool["function"].get("name") for tool in tools if isinstance(tool.get("function"), dict)}


def parse_calls_beside_a_schema(text: str, tools: Sequence[dict[str, Any]]) -> tuple[ToolCall, ...]:
    """Return the tool calls in `text`, the whole answer to a request with a schema for answers. In such an
    answer, the grammar allows a call only as an object with exactly the keys `name` and `arguments`, the
    latter an object; several calls are a list of such objects. Any other text is an answer that matches the
    client's schema, even if it looks like a call; then return (). `tools` has no effect, and is only there
    because `parse_tool_calls` has this parameter, too.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    for item in found if isinstance(found, list) else [found]:
        if not isinstance(item, dict) or item.keys() != _KEYS_BESIDE_A_SCHEMA:
            return ()
        if not isinstance(item["arguments"], dict):
            return ()
    return _to_calls(found)


def may_begin_tool_call(text: str, tools: Sequence[dict[str, Any]] = ()) -> bool:
    """Return whether `text`, the beginning of an answer, may become a call written as JSON without markers.
    `tools` has no effect, and is only there because `may_begin_call_beside_a_schema` has this parameter, too.
    """
    rest = text.lstrip()
    if rest.startswith("["):
        rest = rest[1:].lstrip()
    if not rest:
        return True
    if not rest.startswith("{"):
        return False
    key = rest[1:].lstrip()
    return not key or any(known.startswith(key) or key.startswith(known) for known in CALL_KEYS)


def may_begin_call_beside_a_schema(text: str, tools: Sequence[dict[str, Any]]) -> bool:
    """Return whether `text`, the beginning of an answer that matches the client's schema or calls one of
    `tools`, may become a call. The grammar of such an answer makes each call begin with `name` and then
    `arguments`. So an answer whose first field is also called `name` is no call if the value is not a tool's
    name, or if another key follows.
    """
    compact = "".join(text[:_BEGINNING_CHARS].split()).removeprefix("[")
    for name in _names(tools):
        for written in {json.dumps(name), json.dumps(name, ensure_ascii=False)}:
            call = "".join(f'{{"name":{written},"arguments":{{'.split())
            if compact.startswith(call) or call.startswith(compact):
                return True
    return False


def _to_calls(found: Any) -> tuple[ToolCall, ...]:
    """Return the calls in a parsed value; () if any part of it is not a call."""
    items = found if isinstance(found, list) else [found]
    calls = tuple(call for call in map(_to_call, items) if call is not None)
    return calls if len(calls) == len(items) else ()


def _to_call(found: Any) -> ToolCall | None:
    if not isinstance(found, dict):
        return None
    if isinstance(found.get("function"), dict):
        found = found["function"]
    name = found.get("name")
    arguments = _to_json_object(found.get("arguments", found.get("parameters", {})))
    if not isinstance(name, str) or not name or arguments is None or not _is_portable((name, arguments)):
        return None
    return ToolCall(name, arguments)


def _to_json_object(arguments: Any) -> dict[str, Any] | None:
    """Return `arguments`, a dict or its JSON text, as a JSON object. Return None if they are neither, or
    contain a value that JSON cannot express: some of mlx-lm's parsers evaluate arguments as Python literals,
    which can be bytes, sets or complex numbers.
    """
    try:
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        value = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_portable(value: Any) -> bool:
    """Return whether every client can parse `value`, a result of Python's JSON parser, when it is sent as
    JSON.

    Python's parser accepts more than standard JSON: NaN, Infinity, `1e999` (which becomes infinite), halves
    of surrogate pairs, integers beyond the largest float, and deep nesting.
    """
    level = [value]
    for _ in range(MAX_NESTING):
        if not all(map(_is_portable_scalar, level)):
            return False
        level = [child for item in level for child in _children(item)]
        if not level:
            return True
    return False


def _is_portable_scalar(item: Any) -> bool:
    if isinstance(item, str):
        return not any("\ud800" <= letter <= "\udfff" for letter in item)
    try:
        return not isinstance(item, (int, float)) or math.isfinite(item)
    except OverflowError:  # the integer is too large for a float
        return False


def _children(item: Any) -> Iterable[Any]:
    if isinstance(item, dict):
        return chain(item.keys(), item.values())
    return item if isinstance(item, (list, tuple)) else ()
