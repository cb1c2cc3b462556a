"""Renders a `Generate` operation to the token ids of its prompt, with the model's own chat template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mlx_server.engine.errors import RequestError
from mlx_server.engine.generation.prompts.length_check import check_length, tokenization_error
from mlx_server.engine.generation.prompts.tool_prompt import describe_tools
from mlx_server.engine.prompt_cache.block import common
from mlx_server.protocol import Generate

RESERVED_ARGUMENTS = frozenset(
    {"tokenize", "tools", "add_generation_prompt", "continue_final_message", "chat_template", "conversation"}
    | {"padding", "truncation", "max_length", "return_tensors", "return_dict", "tokenizer_kwargs"}
    | {"return_assistant_tokens_mask", "messages", "template_kwargs"}
)
"""Arguments of `apply_chat_template` itself, which a client cannot set as variables of the template."""


def prompt_tokens(op: Generate, tokenizer: Any, context_tokens: int) -> list[int]:
    """Return the prompt's token ids, without the answer's tokens in `op.emitted`.

    They may be more than the context. Raises RequestError for a prompt that cannot be used.
    """
    check_length(op, tokenizer, context_tokens)
    tokens = _chat_tokens(op, tokenizer) if op.kind == "chat" else _text_tokens(op, tokenizer)
    if not tokens:
        raise RequestError("empty_prompt", "The prompt is empty: send at least one token of text.")
    return tokens


def _text_tokens(op: Generate, tokenizer: Any) -> list[int]:
    if op.prompt_ids is not None:
        return _checked_ids(op.prompt_ids, len(tokenizer))
    prompt = op.prompt or ""
    bos = tokenizer.bos_token
    add_special_tokens = bos is None or not prompt.startswith(bos)
    try:
        return list(tokenizer.encode(prompt, add_special_tokens=add_special_tokens)) if prompt else []
    except Exception as error:  # for example at a lone surrogate, which JSON can carry and UTF-8 cannot
        raise tokenization_error(error) from error


def _checked_ids(ids: Sequence[int], vocabulary_tokens: int) -> list[int]:
    """Raise RequestError for an id outside the vocabulary: it would read beyond the model's weights."""
    wrong = next((token for token in ids if not 0 <= token < vocabulary_tokens), None)
    if wrong is not None:
        raise RequestError(
            "invalid_request",
            f"{wrong} is no token of this model; its ids go from 0 to {vocabulary_tokens - 1}.",
        )
    return list(ids)


def _chat_tokens(op: Generate, tokenizer: Any) -> list[int]:
    if not op.messages:
        raise RequestError("empty_prompt", "There are no messages: send at least one.")
    if not tokenizer.has_chat_template:
        raise RequestError("not_a_chat_model", f"Model {op.model} has no chat template; send a plain prompt.")
    messages = [normalize_message(message) for message in op.messages]
    # The last message may be the beginning of an answer, written by the client: the model continues it.
    continues = messages[-1].get("role") == "assistant" and not messages[-1].get("tool_calls")
    try:
        return _apply_template(
            op, messages, tokenizer, add_generation_prompt=not continues, continue_final_message=continues
        )
    except RequestError:
        raise
    except Exception as error:  # a template is a program that comes with the model: it may raise anything
        raise RequestError(
            "invalid_request", f"The chat template of {op.model} refuses these messages: {error}"
        ) from error


def tokens_before_last_message(op: Generate, tokenizer: Any, prompt: Sequence[int]) -> int:
    """Return how many of a chat's `prompt` tokens precede its last message: other chats may share them.

    Return 0 if that is not known: it is a text, there is one message, or the template refuses the messages
    without the last one (some templates require a message of the user).
    """
    messages = [normalize_message(message) for message in op.messages or ()][:-1]
    if op.kind != "chat" or not messages:
        return 0
    try:
        before = _apply_template(op, messages, tokenizer, add_generation_prompt=False)
    except Exception:  # the template may raise anything; without this number, less is found in the cache
        return 0
    return common(before, prompt)


def _apply_template(
    op: Generate, messages: list[dict[str, Any]], tokenizer: Any, **options: bool
) -> list[int]:
    """Return the token ids of the rendered chat. Raises RequestError, and whatever the template raises."""
    if reserved := RESERVED_ARGUMENTS & (op.template or {}).keys():
        raise RequestError("invalid_request", f"{min(reserved)!r} is no variable of a template.")
    tools = list(op.tools or ())
    if tools and not _template_uses_tools(tokenizer):
        messages, tools = describe_tools(messages, tools), []
    ids = tokenizer.apply_chat_template(
        messages,
        tools=tools or None,
        **options,
        **({} if op.think is None else {"enable_thinking": op.think}),
        **(op.template or {}),
    )
    return list(ids)


def _template_uses_tools(tokenizer: Any) -> bool:
    return bool(tokenizer.has_tool_calling) or "tools" in str(getattr(tokenizer, "chat_template", ""))


def normalize_message(message: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of `message` as templates expect it: content a string, tool arguments an object.

    Raises RequestError if the arguments of a tool call are not JSON.
    """
    normalized = dict(message)
    normalized["content"] = message.get("content") or ""
    if calls := message.get("tool_calls"):
        normalized["tool_calls"] = [_normalize_tool_call(call) for call in calls]
    return normalized


def _normalize_tool_call(call: dict[str, Any]) -> dict[str, Any]:
    function = dict(call.get("function") or {})
    if isinstance(function.get("arguments"), str):
        try:
            function["arguments"] = json.loads(function["arguments"])
        except ValueError as error:
            raise RequestError(
                "invalid_request",
                f"The arguments of tool call {function.get('name')!r} are not JSON: {error}",
            ) from error
    return {**call, "function": function}
