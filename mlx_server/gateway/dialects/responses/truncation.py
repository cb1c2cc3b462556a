"""Shortens a conversation that is longer than the model's context. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from mlx_server.gateway.errors import GatewayError
from mlx_server.gateway.requests.model_requests import GenerationRequest

Message = dict[str, Any]
T = TypeVar("T")
TRUNCATION_SHARES = (0.9, 0.5, 0.5, 0.5, 0.5, 0.5)
"""How far below the limit each attempt to shorten a prompt aims. Characters and tokens are not quite
proportional, and the engine stops counting the tokens of a very long prompt."""


def shortening_retry(
    request: GenerationRequest, submit: Callable[[GenerationRequest], T]
) -> Callable[[GatewayError], T | None]:
    """Return a function that submits the request again without its oldest turns, after `context_exceeded`."""
    shares = iter(TRUNCATION_SHARES)

    def retry(error: GatewayError) -> T | None:
        nonlocal request
        limit, length = error.fields.get("context_tokens"), error.fields.get("prompt_tokens")
        share = next(shares, None)
        if error.code != "context_exceeded" or not limit or not length or share is None:
            return None
        shorter = without_oldest_turns(request.messages or (), share * limit / length)
        if shorter is None:
            return None
        request = replace(request, messages=shorter)
        return submit(request)

    return retry


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
