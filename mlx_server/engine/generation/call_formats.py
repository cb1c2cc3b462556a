"""Chooses by a model's tokenizer and chat template how its thinking and its calls are read. Pure."""

from __future__ import annotations

from typing import Any

from mlx_server.engine.generation.call_texts import (
    parse_cohere,
    parse_deepseek,
    parse_dsml,
    parse_python_calls,
)
from mlx_server.engine.generation.harmony_tokens import find_harmony_tokens
from mlx_server.engine.generation.output_parser import TAGGED_JSON, CallFormat, OutputMarkers

_FORMATS = (
    CallFormat("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", parse_deepseek),
    CallFormat("<｜DSML｜function_calls>", "</｜DSML｜function_calls>", parse_dsml),
    CallFormat("<|START_ACTION|>", "<|END_ACTION|>", parse_cohere),
    CallFormat("<function_calls>", "</function_calls>", parse_python_calls),
    CallFormat("<TOOLCALL>", "</TOOLCALL>"),  # Nemotron: a JSON list
    CallFormat("<|tool_call|>", "<|/tool_call|>"),  # Phi-4 mini: a JSON list
    CallFormat("<|tool_call|>", ""),  # Granite 3: a JSON list up to the end of the answer
    CallFormat("<|python_tag|>", ""),  # Llama 3.1: JSON up to the end of the answer
)
"""Formats unknown to mlx-lm. A model's is the first whose markers are in its template or vocabulary."""

_THINKING = (
    ("<think>", "</think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
)
_WRAPPERS = ("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>")
"""Special tokens of Cohere's models around visible text."""


def output_markers(tokenizer: Any) -> OutputMarkers:
    """Return what the model writes around thinking and tool calls, by its tokenizer and chat template.

    A model of an unknown format is expected to write calls as JSON between `<tool_call>` tags, as
    `describe_tools` asks it to; all else that it writes is text.
    """
    template = str(getattr(tokenizer, "chat_template", "") or "")
    vocabulary = _vocabulary(tokenizer)
    if harmony := find_harmony_tokens(tokenizer):
        return OutputMarkers(harmony=harmony)

    def has(marker: str) -> bool:
        return marker in template or marker in vocabulary

    thinking = (tokenizer.think_start, tokenizer.think_end) if tokenizer.has_thinking else None
    if thinking is None:
        thinking = next((pair for pair in _THINKING if all(map(has, pair))), None)
    if tokenizer.has_tool_calling:
        own = CallFormat(tokenizer.tool_call_start, tokenizer.tool_call_end, tokenizer.tool_parser)
        calls: tuple[CallFormat, ...] = (own,)
    else:
        found = next((one for one in _FORMATS if has(one.start) and (not one.end or has(one.end))), None)
        calls = (found, TAGGED_JSON) if found else (TAGGED_JSON,)
    wrappers = tuple(filter(has, _WRAPPERS)) + tuple(getattr(tokenizer, "structural_markers", ()))
    return OutputMarkers(thinking, calls, wrappers)


def _vocabulary(tokenizer: Any) -> dict[str, int]:
    get = getattr(tokenizer, "get_vocab", None)
    return dict(get()) if get else {}
