"""Convert tool calls, their results, and the tools themselves to the form that a chat template
accepts. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import count, groupby, islice, takewhile
from typing import Any

from mlx_server.engine.vision.pictures import is_image

Message = dict[str, Any]

CALL_ID_CHARS = 9
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def with_results_in_call_order(messages: Sequence[Message]) -> list[Message]:
    """Return `messages` in which the results that follow a message with calls are in the order of the calls.

    Many templates write neither ids nor names of results, so that only the order shows the model which call a
    result answers. A client that runs calls at the same time may send the results in another order. If a
    message with images follows the results, they keep their order, because its images belong to the results
    in that order.
    """
    fitted: list[Message] = []
    for calling, others in _turns(messages):
        calls = _calls_of(calling)
        results = list(takewhile(_is_result, others))
        if _begins_with_images(others[len(results) :]):
            fitted += [*calling, *others]
            continue
        pairs = list(zip(_answered_calls(results, calls), results, strict=True))
        result_of = dict(pairs)
        fitted += [*calling, *(result_of[number] for number in range(len(calls)) if number in result_of)]
        fitted += [result for number, result in pairs if number is None]
        fitted += others[len(results) :]
    return fitted


def split_calls(messages: Sequence[Message]) -> list[Message]:
    """Return `messages` in which each message with several calls is divided into one message for each call.
    Each of these is followed by the result of its call, if there is one.
    """
    fitted: list[Message] = []
    for calling, others in _turns(messages):
        if all(len(message["tool_calls"]) < 2 for message in calling):
            fitted += [*calling, *others]
            continue
        results = list(takewhile(_is_result, others))
        pairs = list(zip(_answered_calls(results, _calls_of(calling)), results, strict=True))
        result_of = dict(pairs)
        number = count()  # of the call
        for message in calling:
            for i, call in enumerate(message["tool_calls"]):
                first = message if i == 0 else {"role": message["role"], "content": ""}
                fitted.append({**first, "tool_calls": [call]})
                if (answered := next(number)) in result_of:
                    fitted.append(result_of[answered])
        fitted += [result for answered_call, result in pairs if answered_call is None]
        fitted += others[len(results) :]
    return fitted


def _turns(messages: Sequence[Message]) -> Iterator[tuple[list[Message], list[Message]]]:
    """Divide `messages` into turns. A turn begins with adjacent messages with calls (the first turn may have
    none), and ends before the next message with calls. Yield for each turn the messages with calls, and its
    other messages.

    The calls of adjacent messages belong together: a client may write each call as a message of its own,
    before all results.
    """
    calling: list[Message] = []
    for has_calls, group in groupby(messages, _has_calls):
        if has_calls:
            calling = list(group)
            continue
        yield calling, list(group)
        calling = []
    if calling:
        yield calling, []


def _has_calls(message: Message) -> bool:
    return bool(message.get("tool_calls"))


def _is_result(message: Message) -> bool:
    return message.get("role") == "tool"


def _calls_of(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [call for message in messages for call in message.get("tool_calls") or ()]


def _begins_with_images(messages: Sequence[Message]) -> bool:
    content = messages[0].get("content") if messages else None
    return isinstance(content, list) and any(is_image(part) for part in content)


def _answered_calls(results: Sequence[Message], calls: Sequence[dict[str, Any]]) -> list[int | None]:
    """Return for each of `results` the index in `calls` of the call that it answers; None if it answers none.

    A result answers the call with its id. If the result or the call has no id, as Ollama's clients send them,
    the result answers the first remaining call of the function that it names, or else the first remaining
    call.
    """
    answered: list[int | None] = [None] * len(results)
    remaining = list(range(len(calls)))
    for belongs in (_has_same_id, _has_same_name, _lacks_an_id):
        for i, result in enumerate(results):
            if answered[i] is not None:
                continue
            number = next((n for n in remaining if belongs(result, calls[n])), None)
            if number is not None:
                answered[i] = number
                remaining.remove(number)
    return answered


def _has_same_id(result: Message, call: dict[str, Any]) -> bool:
    return bool(call.get("id")) and result.get("tool_call_id") == call["id"]


def _has_same_name(result: Message, call: dict[str, Any]) -> bool:
    name = (call.get("function") or {}).get("name")
    return _lacks_an_id(result, call) and bool(name) and result.get("name") == name


def _lacks_an_id(result: Message, call: dict[str, Any]) -> bool:
    return not (result.get("tool_call_id") and call.get("id"))


def with_short_ids(messages: Sequence[Message]) -> list[Message]:
    """Return `messages` in which calls and results have ids of nine letters and digits, because some
    templates refuse other ids. The ids are derived from the clients' ids or, for calls without ids, from the
    calls' positions. A result without an id gets the id of its call, which is looked for in the nearest
    earlier messages that contain calls.
    """
    made = count(1)  # numbers the calls without ids
    fitted: list[Message] = []
    for calling, others in _turns(messages):
        calls = _calls_of(calling)
        ids = [_short_id(str(call.get("id") or f"call {next(made)}")) for call in calls]
        with_ids = iter([{**call, "id": short} for call, short in zip(calls, ids, strict=True)])
        for message in calling:
            own = list(islice(with_ids, len(message["tool_calls"])))
            fitted.append({**message, "tool_calls": own})
        answered = iter(_answered_calls([message for message in others if _is_result(message)], calls))
        for message in others:
            number = next(answered) if _is_result(message) else None
            fitted.append(_with_short_id(message, None if number is None else ids[number]))
    return fitted


def _with_short_id(message: Message, call_id: str | None) -> Message:
    """Return a copy of `message`. If it is the result of a call, it gets the id `call_id` or, if that is
    None, a short id that is derived from its own one.
    """
    if not _is_result(message):
        return dict(message)
    return {**message, "tool_call_id": call_id or _short_id(str(message.get("tool_call_id") or "none"))}


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
    thinking; otherwise return it unchanged. Some templates refuse a message with calls that has both texts.
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
