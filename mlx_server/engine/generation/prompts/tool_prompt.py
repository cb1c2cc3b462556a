"""Describe tools in a system message, for models whose chat template has no place for tools. Pure.

The message asks the model to write each call as JSON, with a name and arguments, between the tags
`<tool_call>` and `</tool_call>`. Many models were trained with calls in this form.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mlx_server.engine.generation.prompts.call_shapes import join_contents, result_as_text

_INTRODUCTION = """You may call these functions, given as JSON, one a line:
{tools}

To call one, answer with its name and arguments as JSON between tags:
<tool_call>
{{"name": "function-name", "arguments": {{"argument": "value"}}}}
</tool_call>"""


def describe_tools(
    messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return `messages` with the tools, calls and results written as plain text.

    The first system message, which is added if it is missing, describes the tools. Calls become text in the
    messages that hold them, and results become user messages.
    """
    plain = as_plain_texts(messages)
    if not tools:
        return plain
    text = _INTRODUCTION.format(tools="\n".join(_to_json(tool.get("function") or tool) for tool in tools))
    if plain and plain[0].get("role") == "system":
        return [{**plain[0], "content": join_contents(plain[0]["content"], text)}, *plain[1:]]
    return [{"role": "system", "content": text}, *plain]


def as_plain_texts(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return `messages` with calls and their results written as plain text."""
    return [_as_plain_text(message) for message in messages]


def _as_plain_text(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content") or ""
    if message.get("role") == "tool":
        return result_as_text(message)
    calls = [_tagged_call(call.get("function") or {}) for call in message.get("tool_calls") or ()]
    others = {key: value for key, value in message.items() if key not in ("tool_calls", "tool_call_id")}
    if isinstance(content, str):
        return others | {"content": "\n".join([content, *calls] if content else calls) if calls else content}
    return others | {"content": join_contents(content, "\n".join(calls))}


def _tagged_call(function: dict[str, Any]) -> str:
    call = {"name": function.get("name"), "arguments": function.get("arguments") or {}}
    return f"<tool_call>\n{_to_json(call)}\n</tool_call>"


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
