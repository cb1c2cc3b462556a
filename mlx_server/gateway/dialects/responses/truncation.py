"""Shortens a conversation that is longer than the model's context. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]


def without_oldest_turns(messages: Sequence[Message], kept_share: float) -> tuple[Message, ...] | None:
    """Return the messages without the oldest turns, so that about `kept_share` of their length is left.

    A turn begins with a user's message, and goes as a whole: a tool's output never stays without its call.
    What stands before the first turn (system messages) and the last turn always stay. Return None where
    nothing can be dropped.
    """
    starts = [number for number, message in enumerate(messages) if message["role"] == "user"]
    if len(starts) < 2:
        return None
    head = list(messages[: starts[0]])
    turns = [
        list(messages[start:end]) for start, end in zip(starts, [*starts[1:], len(messages)], strict=True)
    ]
    wanted = kept_share * sum(map(_length, messages))
    kept: list[list[Message]] = [turns[-1]]
    length = sum(map(_length, head + turns[-1]))
    for turn in reversed(turns[1:-1]):  # at least the oldest turn goes
        length += sum(map(_length, turn))
        if length > wanted:
            break
        kept.append(turn)
    systems = [m for turn in turns[: len(turns) - len(kept)] for m in turn if m["role"] == "system"]
    return (*head, *systems, *(message for turn in reversed(kept) for message in turn))


def _length(message: Message) -> int:
    calls = message.get("tool_calls")
    return len(message.get("content") or "") + (len(json.dumps(calls, default=str)) if calls else 0)
