"""Convert a conversation to a form that a chat template can render. Pure.

Clients send system messages anywhere, several messages of the same role in a row, and calls without ids. Many
templates refuse such conversations, or drop a part of them. What a template needs is found out once, when its
model is loaded (`template_probe`). A message that the template renders correctly is not changed, because the
prompt cache would find nothing if the beginning of a prompt changed with each turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlx_server.engine.generation.prompts.call_shapes import (
    Message,
    join_contents,
    result_as_text,
    split_calls,
    whole_tool,
    with_argument_texts,
    with_call_texts,
    with_one_text,
    with_results_in_call_order,
    with_short_ids,
)

HARMONY_HEADER_END = "<|message|>"


@dataclass(frozen=True)
class TemplateNeeds:
    """What a chat template requires of a conversation. The text below each field says what is required if the
    field is set. The defaults stand for a template that requires nothing. "Calls" are tool calls.
    """

    system: Literal["anywhere", "first", "nowhere"] = "anywhere"
    """Where a system message may occur."""
    alternation: bool = False
    """User and assistant messages must alternate, beginning with a user message."""
    answer_after_tools: bool = False
    """An assistant message must come between a tool's result and the next user message."""
    user: bool = False
    """The conversation must have a user message."""
    no_empty_answers: bool = False
    """No assistant message may be empty."""
    no_final_answer: bool = False
    """The last message must be the user's or a tool's result."""
    no_headers: bool = False
    """Assistant messages must not have headers of the Harmony format, which clients of other servers keep."""
    one_text: bool = False
    """A message with calls must not have both content and thinking."""
    no_stray_results: bool = False
    """A tool's result must follow a message with calls, or another result."""
    short_call_ids: bool = False
    """Ids of calls must consist of nine letters and digits."""
    single_calls: bool = False
    """A message must not have more than one call."""
    argument_texts: bool = False
    """A call's arguments must be JSON text instead of an object."""
    call_markers: tuple[str, str] | None = None
    """The texts with which the model begins and ends a call, if the template drops calls. Calls are then
    written as text between these two. None if the template renders calls."""
    plain_tools: bool = False
    """The template has no place for tools, so tools, calls and results must be written as text."""
    whole_tools: bool = False
    """Each tool must have a description and parameters."""
    tools_as_list: bool = False
    """Without tools, the variable `tools` must be an empty list instead of None."""
    text_parts: bool = False
    """Content must be a list of parts, even if it is only text. Some models that read images need this."""


STRICTEST = TemplateNeeds(
    "nowhere", alternation=True, user=True, no_empty_answers=True, no_headers=True, plain_tools=True
)
"""The needs that suit every chat template: only texts, of the user and of the assistant in turn."""


def fit_messages(messages: Sequence[Message], needs: TemplateNeeds) -> list[Message]:
    """Return `messages`, which `normalize_messages` has normalized, in the form that `needs` describes. The
    given messages are not modified.
    """
    fitted = [_with_both_names_of_thinking(message) for message in messages]
    fitted = with_results_in_call_order(fitted)
    if needs.no_final_answer:
        fitted = _with_last_turn(fitted)
    if needs.system != "anywhere":
        fitted = _fold_system(fitted, keeps_first=needs.system == "first")
    if needs.user and not any(message.get("role") == "user" for message in fitted):
        fitted = _with_user(fitted)
    if needs.no_stray_results:
        fitted = _with_stray_results_as_text(fitted)
    if needs.call_markers:
        fitted = [with_call_texts(message, *needs.call_markers) for message in fitted]
    if needs.single_calls:
        fitted = split_calls(fitted)
    if needs.alternation:
        fitted = _alternate(fitted)
    if needs.answer_after_tools:
        fitted = _answer_tools(fitted)
    if needs.no_headers:
        fitted = [_without_headers(message) for message in fitted]
    if needs.no_empty_answers:
        fitted = [_with_some_content(message) for message in fitted]
    if needs.short_call_ids:
        fitted = with_short_ids(fitted)
    if needs.argument_texts:
        fitted = [with_argument_texts(message) for message in fitted]
    if needs.one_text:
        fitted = [with_one_text(message) for message in fitted]
    if needs.text_parts:
        fitted = [_with_parts(message) for message in fitted]
    return fitted


def fit_tools(tools: Sequence[dict[str, Any]], needs: TemplateNeeds) -> list[dict[str, Any]] | None:
    """Return `tools` in the form that `needs` describes. Without tools, return None or, if the template needs
    a list, [].
    """
    if not tools:
        return [] if needs.tools_as_list else None
    return [whole_tool(tool) for tool in tools] if needs.whole_tools else list(tools)


def _with_both_names_of_thinking(message: Message) -> Message:
    """Return the message with its thinking under both names that templates use, `reasoning_content` and
    `thinking`.
    """
    thoughts = message.get("reasoning_content") or message.get("thinking")
    if not isinstance(thoughts, str):
        return message
    return message | {"reasoning_content": thoughts, "thinking": thoughts}


def _fold_system(messages: Sequence[Message], *, keeps_first: bool) -> list[Message]:
    """Move the text of each system message to the beginning of the next user message.

    With `keeps_first`, the system messages at the start are joined into one message, which stays. If an
    assistant message or the end comes before the next user message, the text becomes a user message of its
    own.
    """
    start = next((i for i, message in enumerate(messages) if message.get("role") != "system"), len(messages))
    fitted: list[Message] = []
    pending: Any = ""
    if keeps_first and start:
        fitted.append({**messages[0], "content": _joined(messages[:start])})
        messages = messages[start:]
    for message in messages:
        if message.get("role") == "system":
            pending = join_contents(pending, message.get("content") or "")
            continue
        if pending and message.get("role") == "user":
            fitted.append({**message, "content": join_contents(pending, message.get("content") or "")})
            pending = ""
            continue
        if pending and message.get("role") == "assistant":
            fitted.append({"role": "user", "content": pending})
            pending = ""
        fitted.append(message)
    return [*fitted, {"role": "user", "content": pending}] if pending else fitted


def _joined(messages: Sequence[Message]) -> Any:
    content: Any = ""
    for message in messages:
        content = join_contents(content, message.get("content") or "")
    return content


def _with_user(messages: Sequence[Message]) -> list[Message]:
    """Return `messages`, none of which is a user message, with an empty user message added: after the first
    message if that is a system message, else at the start. If all messages are system messages, return a
    single user message with their joined texts instead.
    """
    if all(message.get("role") == "system" for message in messages):
        return [{"role": "user", "content": _joined(messages)}]
    after = 1 if messages[0].get("role") == "system" else 0
    return [*messages[:after], {"role": "user", "content": ""}, *messages[after:]]


def _alternate(messages: Sequence[Message]) -> list[Message]:
    """Join adjacent user messages and adjacent assistant messages, and insert an empty user message if an
    assistant message or a tool's result would otherwise come first after the system messages. System
    messages, tools' results and messages with tool calls are not joined.
    """
    fitted: list[Message] = []
    is_first = True  # no message of the user or of the assistant yet
    for message in messages:
        role = message.get("role")
        is_turn = role in ("user", "assistant") and not message.get("tool_calls")
        last = fitted[-1] if fitted else {}
        if is_turn and last.get("role") == role and not last.get("tool_calls"):
            content = join_contents(last.get("content") or "", message.get("content") or "")
            fitted[-1] = {**last, "content": content}
            continue
        if is_first and role in ("assistant", "tool"):
            fitted.append({"role": "user", "content": ""})
        is_first = is_first and role == "system"
        fitted.append(message)
    return fitted


def _without_headers(message: Message) -> Message:
    """Return a copy of an assistant message in which headers of the Harmony format are removed: the content
    is only the text after the last header. Return a message without such headers, or of another role,
    unchanged.
    """
    content = message.get("content")
    if (
        message.get("role") != "assistant"
        or not isinstance(content, str)
        or HARMONY_HEADER_END not in content
    ):
        return message
    last = content.rpartition(HARMONY_HEADER_END)[2]
    return {**message, "content": last.partition("<|end|>")[0].partition("<|return|>")[0]}


def split_final_answer(messages: Sequence[Message]) -> tuple[list[Message], str, str] | None:
    """Return the messages before the beginning of an answer with which `messages` end, and the thinking and
    the text of that beginning. Several assistant messages at the end are one answer. If no other message is
    before it, an empty user message is. Return None if there is no such beginning: the last message is not
    the assistant's, calls tools, or has other parts than texts.
    """
    before = list(messages)
    content: Any = ""
    thoughts = ""
    while before and before[-1].get("role") == "assistant" and not before[-1].get("tool_calls"):
        message = _with_both_names_of_thinking(before.pop())
        content = join_contents(message.get("content") or "", content)
        if isinstance(thinking := message.get("thinking"), str):
            thoughts = thinking + thoughts
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if len(before) == len(messages) or any(part.get("type") != "text" for part in parts):
        return None
    before = before or [{"role": "user", "content": ""}]
    return before, thoughts, "".join(str(part.get("text") or "") for part in parts)


def _with_last_turn(messages: Sequence[Message]) -> list[Message]:
    """Return `messages` with a turn added after an assistant message at the end: an empty result for each of
    its calls or, without calls, an empty user message.
    """
    last = messages[-1] if messages else {}
    if last.get("role") != "assistant":
        return list(messages)
    results = [
        {"role": "tool", "content": "", "name": (call.get("function") or {}).get("name")}
        | ({"tool_call_id": call["id"]} if call.get("id") else {})
        for call in last.get("tool_calls") or ()
    ]
    return [*messages, *(results or [{"role": "user", "content": ""}])]


def _with_stray_results_as_text(messages: Sequence[Message]) -> list[Message]:
    """Return `messages` with stray tool results converted to user messages. A tool result is stray if the
    last message before it that is not a tool result has no tool calls.
    """
    fitted: list[Message] = []
    follows_calls = False
    for message in messages:
        if message.get("role") != "tool":
            follows_calls = bool(message.get("tool_calls"))
        fitted.append(message if message.get("role") != "tool" or follows_calls else result_as_text(message))
    return fitted


def _with_some_content(message: Message) -> Message:
    is_empty = not message.get("content") and not message.get("tool_calls")
    return {**message, "content": " "} if is_empty and message.get("role") == "assistant" else message


def _with_parts(message: Message) -> Message:
    content = message.get("content")
    return (
        {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message
    )


def _answer_tools(messages: Sequence[Message]) -> list[Message]:
    fitted: list[Message] = []
    for message in messages:
        if message.get("role") == "user" and fitted and fitted[-1].get("role") == "tool":
            fitted.append({"role": "assistant", "content": ""})
        fitted.append(message)
    return fitted
