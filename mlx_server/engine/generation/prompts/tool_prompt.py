"""Tools for templates that know of none: told in a system message, in words many models learn. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

_INTRODUCTION = """You may call these functions, given as JSON, one a line:
{tools}

To call one, answer with its name and arguments as JSON between tags:
<tool_call>
{{"name": "function-name", "arguments": {{"argument": "value"}}}}
</tool_call>"""


def told(messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """`messages` as plain text: the tools in the system's, calls and their results where they stood."""
    plain = [_plain(message) for message in messages]
    text = _INTRODUCTION.format(tools="\n".join(_json(tool.get("function") or tool) for tool in tools))
    if plain and plain[0].get("role") == "system":
        return [{**plain[0], "content": f"{plain[0]['content']}\n\n{text}"}, *plain[1:]]
    return [{"role": "system", "content": text}, *plain]


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content") or ""
    if message.get("role") == "tool":
        return {"role": "user", "content": f"<tool_response>\n{content}\n</tool_response>"}
    calls = [_tagged(call.get("function") or {}) for call in message.get("tool_calls") or ()]
    kept = {key: value for key, value in message.items() if key not in ("tool_calls", "tool_call_id")}
    return kept | {"content": "\n".join([content, *calls] if content else calls) if calls else content}


def _tagged(function: dict[str, Any]) -> str:
    call = {"name": function.get("name"), "arguments": function.get("arguments") or {}}
    return f"<tool_call>\n{_json(call)}\n</tool_call>"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
