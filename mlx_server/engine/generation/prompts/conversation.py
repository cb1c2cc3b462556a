"""Convert a conversation to a shape that a chat template can render. Pure.

Clients send system messages anywhere, two messages of one role in a row, and calls without ids. Many
templates refuse that, or drop a part of it. What a template needs is found out once, when its model is loaded
(`template_probe`). A message that the template renders correctly is not changed: if the beginning of a prompt
changed with each turn, nothing of it would be found in the prompt cache.
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
    with_short_ids,
)

HARMONY_HEADER_END = "<|message|>"


@dataclass(frozen=True)
class TemplateNeeds:
    """What a chat template requires of a conversation. By default it requires nothing."""

    system: Literal["anywhere", "first", "nowhere"] = "anywhere"
    """Where a system message may stand."""
    alternation: bool = False
    """Messages of the user and of the assistant alternate, beginning with the user's."""
    answer_after_tools: bool = False
    """A message of the assistant stands between the result of a tool and the user's next message."""
    user: bool = False
    """There is a message of the user."""
    no_empty_answers: bool = False
    """No message of the assistant is empty."""
    no_headers: bool = False
    """Answers are without the headers of the Harmony format, which clients of other servers keep."""
    one_text: bool = False
    """A message with calls has either content or thinking."""
    no_stray_results: bool = False
    """The result of a tool follows a message with calls, or another result."""
    short_call_ids: bool = False
    """Ids of calls have nine letters and digits."""
    single_calls: bool = False
    """A message calls one tool."""
    argument_texts: bool = False
    """A call's arguments are JSON text."""
    call_markers: tuple[str, str] | None = None
    """The template drops calls, so they become text between these markers, which are those of the model."""
    plain_tools: bool = False
    """The template has no place for tools: they, their calls and results become text."""
    whole_tools: bool = False
    """Tools have a description and parameters."""
    tools_as_list: bool = False
    """`tools` is an empty list, not None, if there are none."""
    text_parts: bool = False
    """Every content is a list of parts, also one of text alone. Some models that read images need this."""


STRICTEST = TemplateNeeds(
    "nowhere", alternation=True, user=True, no_empty_answers=True, no_headers=True, plain_tools=True
)
"""The shape that every chat template renders: texts of the user and of the assistant in turn."""


def fit_messages(messages: Sequence[Message], needs: TemplateNeeds) -> list[Message]:
    """Return the normalized `messages` in the shape that `needs` describes. The given messages are not
    modified.
    """
    fitted = [_with_both_names_of_thinking(message) for message in messages]
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
    """Return `tools` with all fields that the template reads; None for no tools, as templates expect."""
    if not tools:
        return [] if needs.tools_as_list else None
    return [whole_tool(tool) for tool in tools] if needs.whole_tools else list(tools)


def _with_both_names_of_thinking(message: Message) -> Message:
    """Return the message with its thinking under both names that templates read."""
    thoughts = message.get("reasoning_content") or message.get("thinking")
    if not isinstance(thoughts, str):
        return message
    return message | {"reasoning_content": thoughts, "thinking": thoughts}


def _fold_system(messages: Sequence[Message], *, keeps_first: bool) -> list[Message]:
    """Move system messages into the user's next message. With `keeps_first`, those at the start are joined
    into one message, which stays. If the assistant's next message comes before one of the user's, the text
    becomes a user's message of its own.
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
    """Add a user's message after the system message. A lone system message becomes the user's
    message itself.
    """
    if all(message.get("role") == "system" for message in messages):
        return [{"role": "user", "content": _joined(messages)}]
    after = 1 if messages[0].get("role") == "system" else 0
    return [*messages[:after], {"role": "user", "content": ""}, *messages[after:]]


def _alternate(messages: Sequence[Message]) -> list[Message]:
    """Join adjacent messages of one role. Calls, results of tools and a first system message stay as they
    are.
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
    """Replace an answer in the Harmony format by the text of its last message."""
    content = message.get("content")
    if (
        message.get("role") != "assistant"
        or not isinstance(content, str)
        or HARMONY_HEADER_END not in content
    ):
        return message
    last = content.rpartition(HARMONY_HEADER_END)[2]
    return {**message, "content": last.partition("<|end|>")[0].partition("<|return|>")[0]}


def _with_stray_results_as_text(messages: Sequence[Message]) -> list[Message]:
    """Convert tool results that belong to no call to user's messages: no message with calls precedes them."""
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
