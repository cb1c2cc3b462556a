"""From a `Generate` to the prompt's token ids, through the model's own template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mlx_server.engine.errors import RequestError
from mlx_server.engine.generation.prompts.long_text import tokens_at_least
from mlx_server.engine.generation.prompts.tool_prompt import told
from mlx_server.engine.prompt_cache.block import common
from mlx_server.protocol import Generate

RESERVED = frozenset(
    {"tokenize", "tools", "add_generation_prompt", "continue_final_message", "chat_template", "conversation"}
    | {"padding", "truncation", "max_length", "return_tensors", "return_dict", "tokenizer_kwargs"}
    | {"return_assistant_tokens_mask", "messages", "template_kwargs"}
)
"""Arguments of `apply_chat_template` that are no variables of templates."""


COUNTED_TOKENS = 500_000
"""What is counted for its own sake may be longer than the context, within reason."""


def prompt_tokens(op: Generate, tokenizer: Any, context_tokens: int) -> list[int]:
    """The ids, without what was emitted; they may be more than the context. Raises RequestError."""
    _refuse_endless(op, tokenizer, context_tokens)
    tokens = _chat(op, tokenizer) if op.kind == "chat" else _text(op, tokenizer)
    if not tokens:
        raise RequestError("empty_prompt", "The prompt is empty: send at least one token of text.")
    return tokens


def _refuse_endless(op: Generate, tokenizer: Any, context_tokens: int) -> None:
    most = max(context_tokens, COUNTED_TOKENS) if op.count_only else context_tokens

    def count(text: str) -> int:
        try:
            return len(tokenizer.encode(text, add_special_tokens=False))
        except Exception as error:  # as in `_text`
            raise unreadable(error) from error

    texts = [str(message.get("content") or "") for message in op.messages or ()]
    tools = [json.dumps(tool) for tool in op.tools or ()]
    if (least := tokens_at_least([op.prompt or "", *texts, *tools], count, most)) > most:
        raise RequestError(
            "context_exceeded",
            f"The prompt has {least} tokens or more, and the context of {op.model} is {context_tokens}: "
            "shorten it.",
            prompt_tokens=least,
            context_tokens=context_tokens,
        )


def _text(op: Generate, tokenizer: Any) -> list[int]:
    if op.prompt_ids is not None:
        return _known(op.prompt_ids, len(tokenizer))
    prompt = op.prompt or ""
    bos = tokenizer.bos_token
    special = bos is None or not prompt.startswith(bos)
    try:
        return list(tokenizer.encode(prompt, add_special_tokens=special)) if prompt else []
    except Exception as error:  # e.g. half a surrogate pair, which JSON can carry and UTF-8 cannot
        raise unreadable(error) from error


def _known(ids: Sequence[int], vocabulary_tokens: int) -> list[int]:
    """Raises RequestError: an id that is none would read beyond the model's weights."""
    wrong = next((token for token in ids if not 0 <= token < vocabulary_tokens), None)
    if wrong is not None:
        raise RequestError(
            "invalid_request",
            f"{wrong} is no token of this model; its ids go from 0 to {vocabulary_tokens - 1}.",
        )
    return list(ids)


def _chat(op: Generate, tokenizer: Any) -> list[int]:
    if not op.messages:
        raise RequestError("empty_prompt", "There are no messages: send at least one.")
    if not tokenizer.has_chat_template:
        raise RequestError("not_a_chat_model", f"Model {op.model} has no chat template; send a plain prompt.")
    messages = [normalized(message) for message in op.messages]
    # An answer begun by the client is continued, not answered.
    begun = messages[-1].get("role") == "assistant" and not messages[-1].get("tool_calls")
    try:
        return _rendered(
            op, messages, tokenizer, add_generation_prompt=not begun, continue_final_message=begun
        )
    except RequestError:
        raise
    except Exception as error:  # a template is the model's own program: it raises what it likes
        raise RequestError(
            "invalid_request", f"The chat template of {op.model} refuses these messages: {error}"
        ) from error


def tokens_before_last_turn(op: Generate, tokenizer: Any, prompt: Sequence[int]) -> int:
    """How much of a chat's `prompt` stands before its last message: other chats may begin with it too.

    0 where that cannot be told: a template may refuse a conversation that nobody has begun.
    """
    messages = [normalized(message) for message in op.messages or ()][:-1]
    if op.kind != "chat" or not messages:
        return 0
    try:
        before = _rendered(op, messages, tokenizer, add_generation_prompt=False)
    except Exception:  # as above; nothing is lost but warmth
        return 0
    return common(before, prompt)


def _rendered(op: Generate, messages: list[dict[str, Any]], tokenizer: Any, **how: bool) -> list[int]:
    """Through the template. Raises what that raises."""
    if taken := RESERVED & (op.template or {}).keys():
        raise RequestError("invalid_request", f"{min(taken)!r} is no variable of a template.")
    tools = list(op.tools or ())
    if tools and not _knows_tools(tokenizer):
        messages, tools = told(messages, tools), []
    ids = tokenizer.apply_chat_template(
        messages,
        tools=tools or None,
        **how,
        **({} if op.think is None else {"enable_thinking": op.think}),
        **(op.template or {}),
    )
    return list(ids)


def _knows_tools(tokenizer: Any) -> bool:
    """Whether the model's template has a place for tools."""
    return bool(tokenizer.has_tool_calling) or "tools" in str(getattr(tokenizer, "chat_template", ""))


def unreadable(error: Exception) -> RequestError:
    """The error for text that the tokenizer cannot take."""
    return RequestError("invalid_request", f"The text cannot be split into tokens: {error}")


def normalized(message: dict[str, Any]) -> dict[str, Any]:
    """A message as templates expect it: content a string, tool-call arguments an object."""
    out = dict(message)
    out["content"] = message.get("content") or ""
    if calls := message.get("tool_calls"):
        out["tool_calls"] = [_call(call) for call in calls]
    return out


def _call(call: dict[str, Any]) -> dict[str, Any]:
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
