"""How OpenAI's routes word an answer: objects, choices, deltas, counts. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_server import protocol
from mlx_server.gateway.dialects.answer_parts import AnswerPart, Call
from mlx_server.gateway.dialects.tools import as_string


@dataclass(frozen=True)
class Wording:
    """A route's objects' names, and where a part of an answer goes in them."""

    prefix: str
    whole: str
    chunk: str
    choice: Callable[[AnswerPart], dict[str, Any]]
    first: dict[str, Any] | None
    delta: Callable[[AnswerPart], dict[str, Any]]
    last: dict[str, Any]
    logprobs: Callable[[Sequence[protocol.Logprobs]], dict[str, Any]]


def choice(index: int, content: dict[str, Any], reason: str | None, logprobs: Any = None) -> dict[str, Any]:
    """One of an answer's choices, whole or a part of it."""
    return {"index": index, **content, "logprobs": logprobs, "finish_reason": reason}


def usage(dones: Sequence[protocol.Done], answers_a_prompt: int) -> dict[str, Any]:
    """Counts over all answers; a prompt that several answer is counted once."""
    prompt = sum(done.usage.prompt_tokens for done in dones[::answers_a_prompt])
    completion = sum(done.usage.completion_tokens for done in dones)
    cached = sum(done.usage.cached_tokens for done in dones[::answers_a_prompt])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _message(part: AnswerPart) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": part.text, "refusal": None}
    if part.thinking:
        message["reasoning_content"] = part.thinking
    if part.calls:
        message |= {"content": part.text or None, "tool_calls": [_call(call) for call in part.calls]}
    return {"message": message}


def _delta(part: AnswerPart) -> dict[str, Any]:
    delta: dict[str, Any] = {"content": part.text} if part.text else {}
    if part.thinking:
        delta["reasoning_content"] = part.thinking
    if part.calls:
        delta["tool_calls"] = [{"index": call.index, **_call(call)} for call in part.calls]
    return {"delta": delta}


def _call(call: Call) -> dict[str, Any]:
    """OpenAI gives a call's arguments as a string."""
    function = {"name": call.call.name, "arguments": as_string(call.call.arguments)}
    return {"id": call.id, "type": "function", "function": function}


def _chat_logprobs(chances: Sequence[protocol.Logprobs]) -> dict[str, Any]:
    rows = [_chance(c.drawn) | {"top_logprobs": [_chance(chance) for chance in c.top]} for c in chances]
    return {"content": rows, "refusal": None}


def _chance(chance: protocol.TokenLogprob) -> dict[str, Any]:
    return {"token": chance.text, "logprob": chance.logprob, "bytes": list(chance.bytes)}


def _completion_logprobs(chances: Sequence[protocol.Logprobs]) -> dict[str, Any]:
    texts = [c.drawn.text for c in chances]
    return {
        "tokens": texts,
        "token_logprobs": [c.drawn.logprob for c in chances],
        "top_logprobs": [{chance.text: chance.logprob for chance in c.top} for c in chances],
        "text_offset": [sum(map(len, texts[:at])) for at in range(len(texts))],
    }


def data(body: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n"


CHAT = Wording(
    prefix="chatcmpl-",
    whole="chat.completion",
    chunk="chat.completion.chunk",
    choice=_message,
    first={"delta": {"role": "assistant", "content": ""}},
    delta=_delta,
    last={"delta": {}},
    logprobs=_chat_logprobs,
)
COMPLETION = Wording(
    prefix="cmpl-",
    whole="text_completion",
    chunk="text_completion",
    choice=lambda part: {"text": part.text},
    first=None,
    delta=lambda part: {"text": part.text},
    last={"text": ""},
    logprobs=_completion_logprobs,
)
