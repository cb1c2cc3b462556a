"""Convert tool calls, their results, and the tools themselves to the form that a chat template
accepts. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from mlx_server.engine.vision.pictures import is_image

Message = dict[str, Any]

CALL_ID_CHARS = 9
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def split_calls(messages: Sequence[Message]) -> list[Message]:
    """Return `messages` in which each message with several calls is divided into one message for each call.
    Each of these is followed by the result of its call.
    """
    fitted: list[Message] = []
    i = 0
    while i < len(messages):
        message, i = messages[i], i + 1
        calls = message.get("tool_calls") or []
        if len(calls) < 2:
            fitted.append(message)
            continue
        results = []
        while i < len(messages) and messages[i].get("role") == "tool":
            results.append(messages[i])
            i += 1
        for number, call in enumerate(calls):
            first = message if number == 0 else {"role": message["role"], "content": ""}
            fitted.append({**first, "tool_calls": [call]})
            if (result := _take_result(results, call)) is not None:
                fitted.append(result)
        fitted += results
    return fitted


def _take_result(results: list[Message], call: dict[str, Any]) -> Message | None:
    """Remove the result of `call` from `results`, and return it; None if there is none. The result of a call
    is the first one that has the call's id or no id.
    """
    for i, result in enumerate(results):
        if not result.get("tool_call_id") or result["tool_call_id"] == call.get("id"):
            return results.pop(i)
    return None


def with_short_ids(messages: Sequence[Message]) -> list[Message]:
    """Return `messages` with ids of nine letters and digits for calls and results. The ids are derived from
    the clients' ids or, for calls without ids, from the calls' positions.
    """
    fitted: list[Message] = []
    waiting: list[str] = []  # ids made for calls without ids, until the results of these calls come
    made = 0
    for message in messages:
        if calls := message.get("tool_calls"):
            ids = []
            for call in calls:
                if call.get("id"):
                    ids.append(_short_id(str(call["id"])))
                    continue
                made += 1
                ids.append(_short_id(f"call {made}"))
                waiting.append(ids[-1])
            pairs = zip(calls, ids, strict=True)
            fitted.append({**message, "tool_calls": [{**call, "id": short} for call, short in pairs]})
        elif message.get("role") == "tool":
            given = message.get("tool_call_id")
            short = _short_id(str(given)) if given else waiting.pop(0) if waiting else _short_id("none")
            fitted.append({**message, "tool_call_id": short})
        else:
            fitted.append(message)
    return fitted


def _short_id(given: str) -> str:
    if len(given) == CALL_ID_CHARS and given.isascii() and given.isalnum():
        return given
    digest = hashlib.sha256(given.encode("utf-8", "surrogatepass")).digest()
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:CALL_ID_CHARS])


def with_argument_texts(message: Message) -> Message:
    if not message.get("tool_calls"):
        return message
    calls = []
    for call in message["tool_calls"]:
        function = call.get("function") or {}
        arguments = function.get("arguments")
        text = arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)
        calls.append({**call, "function": {**function, "arguments": text}})
    return {**message, "tool_calls": calls}


def with_one_text(message: Message) -> Message:
    """Return the message with its content moved to the end of its thinking, if it has calls, content and
    thinking; otherwise return it unchanged.
    """
    if not (message.get("tool_calls") and message.get("thinking") and message.get("content")):
        return message
    thoughts = join_contents(message["thinking"], message["content"])
    return message | {"content": "", "thinking": thoughts, "reasoning_content": thoughts}


def with_call_texts(message: Message, start: str, end: str) -> Message:
    """Return the message with its calls written into its content, as JSON between the markers `start` and
    `end`.
    """
    if not message.get("tool_calls"):
        return message
    functions = [call.get("function") or {} for call in message["tool_calls"]]
    calls = [{"name": one.get("name"), "arguments": one.get("arguments") or {}} for one in functions]
    text = start + json.dumps(calls, ensure_ascii=False) + end
    others = {key: value for key, value in message.items() if key != "tool_calls"}
    return others | {"content": join_contents(message.get("content") or "", text)}


def result_as_text(message: Message) -> Message:
    """Convert the result of a tool call to a user message."""
    content = message.get("content") or ""
    before, after = "<tool_response>\n", "\n</tool_response>"
    if isinstance(content, list) and any(is_image(part) for part in content):
        parts = [{"type": "text", "text": before}, *content, {"type": "text", "text": after}]
        return {"role": "user", "content": parts}
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return {"role": "user", "content": f"{before}{text}{after}"}


def whole_tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    if not isinstance(function, dict):
        return tool
    given = {name: value for name, value in function.items() if value is not None}
    defaults = {"description": "", "parameters": {"type": "object", "properties": {}}}
    return {
        **tool,
        "function": {**given, **{name: value for name, value in defaults.items() if name not in given}},
    }


def join_contents(first: Any, second: Any) -> Any:
    """Join the contents of two messages, which are texts or lists of parts. Two texts become one text, with
    an empty line between them; otherwise, the result is a list of parts.
    """
    if isinstance(first, str) and isinstance(second, str):
        return "\n\n".join(text for text in (first, second) if text)
    return [*_parts(first), *_parts(second)]


def _parts(content: Any) -> list[Any]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []
