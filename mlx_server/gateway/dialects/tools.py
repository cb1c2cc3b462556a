"""Check the functions that a client offers, and make the JSON schema of a tool call that the model must make.
Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from mlx_server import protocol
from mlx_server.gateway.dialects.body_budget import SMALL_BYTES
from mlx_server.gateway.dialects.value_limits import check_counts
from mlx_server.gateway.errors import BadRequest, listed, quoted
from mlx_server.gateway.json_text import valid_text
from mlx_server.gateway.requests.model_requests import with_moved_references
from vestal.web.json_body import StepwiseDecoder

ANY_ARGUMENTS = {"type": "object"}

UNREADABLE = "arguments"
"""The name under which a template gets the arguments of a past call that are not a JSON object."""


def past_arguments(given: str | dict[str, Any] | None) -> dict[str, Any]:
    """Return the arguments of a past tool call as the object that chat templates expect.

    `given` are the arguments as the client sent them: JSON text from OpenAI's clients, an object from
    Ollama's. None and an empty text become an empty object. An unpaired surrogate in the text becomes U+FFFD.
    A text is not refused if it is neither a JSON object nor `null`, or if the protocol between gateway and
    engine cannot carry its values: it becomes the only value of an object, under the name UNREADABLE. A model
    may have written such a text, and it remains in the history, so that an error would fail every later turn
    of the conversation too.
    """
    if not given or isinstance(given, dict):
        return given or {}
    decoder = StepwiseDecoder if len(given) > SMALL_BYTES else None
    try:
        arguments = json.loads(given, cls=decoder, parse_constant=_refuse_constant)
        if "\\u" in given:
            arguments = json.loads(valid_text(json.dumps(arguments, ensure_ascii=False)))
        protocol.check_json("arguments", arguments)
    except (ValueError, RecursionError, protocol.ProtocolError):
        return {UNREADABLE: given}
    return (arguments or {}) if isinstance(arguments, dict | None) else {UNREADABLE: given}


def check_argument_texts(texts: Iterable[str]) -> None:
    """Raise TooLarge if the arguments of all past tool calls together hold too many values. The arguments are
    JSON inside strings, which the count of the body's values does not see.
    """
    raw = b",".join(text.encode("utf-8", "replace") for text in texts)
    if len(raw) > SMALL_BYTES:
        check_counts(raw)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def checked_tools(tools: Sequence[dict[str, Any]] | None) -> tuple[dict[str, Any], ...] | None:
    """Return `tools`, or None if there are none. Raises BadRequest if one of them has no name or a wrong
    schema.
    """
    for position, tool in enumerate(tools or ()):
        check_tool(tool, position)
    return tuple(tools) if tools else None


def check_tool(tool: dict[str, Any], position: int) -> None:
    """Raise BadRequest if a function has no name, or if its parameters are not an object. `position` is its
    index in the body's tools.
    """
    function = tool.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRequest("invalid_request", f"tools.{position}.function.name: is missing")
    if not isinstance(function.get("parameters") or {}, dict):
        message = f"tools.{position}.function.parameters: should be a JSON schema"
        raise BadRequest("invalid_request", message)


def call_schema(tools: Sequence[dict[str, Any]], name: str | None = None) -> dict[str, Any]:
    """Return the JSON schema of a call to any of `tools`, or only to the tool called `name` if that is given.
    Raises BadRequest if there is no such tool, or if a schema is nested too deeply.
    """
    functions = [tool["function"] for tool in tools]
    allowed = [function for function in functions if name in (None, function["name"])]
    if not allowed:
        offered = listed([function["name"] for function in functions])
        message = f"tool_choice: {quoted(name or 'a tool')} is not offered; there are: {offered}"
        raise BadRequest("invalid_request", message)
    # A reference in a function's schema starts at the schema's root, which becomes a part of a larger schema.
    try:
        definitions = {
            f"arguments{index}": _schema_of_arguments(function["parameters"], f"arguments{index}")
            for index, function in enumerate(allowed)
            if function.get("parameters")
        }
    except RecursionError as error:
        raise BadRequest("invalid_request", "tools: parameters are nested too deeply") from error
    calls = [_schema_of_call(function, index) for index, function in enumerate(allowed)]
    return {"anyOf": calls, "$defs": definitions} if len(calls) > 1 else calls[0] | {"$defs": definitions}


_OTHER_TYPES = ("array", "string", "number", "integer", "boolean", "null")


def _schema_of_arguments(parameters: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the schema of a function's arguments as the definition `name`. It allows only objects, unless
    the function's own schema has another type: a model that may do so writes arguments that are no object,
    and its call is sent as a text.
    """
    moved: dict[str, Any] = with_moved_references(parameters, name)
    given = parameters.get("type")
    is_typed = isinstance(given, list) or (isinstance(given, str) and given.lower() in _OTHER_TYPES)
    return moved if is_typed else moved | ANY_ARGUMENTS


def _schema_of_call(function: dict[str, Any], index: int) -> dict[str, Any]:
    arguments = {"$ref": f"#/$defs/arguments{index}"} if function.get("parameters") else ANY_ARGUMENTS
    return {
        "type": "object",
        "properties": {"name": {"const": function["name"]}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
