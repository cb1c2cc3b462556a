"""The functions that a client offers: checked, and made a grammar where one must be called. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mlx_server.gateway.errors import BadRequest

ANY_ARGUMENTS = {"type": "object"}


def checked(tools: Sequence[dict[str, Any]] | None) -> tuple[dict[str, Any], ...] | None:
    """`tools`, none for an empty list. Raises BadRequest for one without a name."""
    for at, tool in enumerate(tools or ()):
        function = tool.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRequest("invalid_request", f"tools.{at}.function.name: is missing")
        if not isinstance(function.get("parameters") or {}, dict):
            raise BadRequest("invalid_request", f"tools.{at}.function.parameters: should be a JSON schema")
    return tuple(tools) if tools else None


def call_schema(tools: Sequence[dict[str, Any]], name: str | None = None) -> dict[str, Any]:
    """The schema of a call to one of `tools`, or to `name` of them. Raises BadRequest."""
    functions = [tool["function"] for tool in tools]
    chosen = [function for function in functions if name in (None, function["name"])]
    if not chosen:
        there = ", ".join(function["name"] for function in functions) or "none"
        raise BadRequest(
            "invalid_request", f"tool_choice: {name or 'a tool'!r} is not offered; there are: {there}"
        )
    # The parameters' own references start at their root, which is not the root any more.
    try:
        definitions = {
            f"arguments{i}": _moved(f["parameters"], i) for i, f in enumerate(chosen) if f.get("parameters")
        }
    except RecursionError as error:
        raise BadRequest("invalid_request", "tools: parameters are nested too deeply") from error
    calls = [_call(function, i) for i, function in enumerate(chosen)]
    return {"anyOf": calls, "$defs": definitions} if len(calls) > 1 else calls[0] | {"$defs": definitions}


def _call(function: dict[str, Any], at: int) -> dict[str, Any]:
    arguments = {"$ref": f"#/$defs/arguments{at}"} if function.get("parameters") else ANY_ARGUMENTS
    return {
        "type": "object",
        "properties": {"name": {"const": function["name"]}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _moved(schema: Any, at: int) -> Any:
    if isinstance(schema, list):
        return [_moved(item, at) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: _moved(value, at) for key, value in schema.items()}
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        out["$ref"] = f"#/$defs/arguments{at}{reference[1:]}"
    return out


def as_string(arguments: dict[str, Any]) -> str:
    """A call's arguments as OpenAI has them."""
    return json.dumps(arguments, ensure_ascii=False)
