"""Choose the markers and parsers of a model's thinking and tool calls, by its tokenizer and chat template.
Pure.
"""

from __future__ import annotations

from typing import Any

from mlx_server.engine.generation.call_texts import (
    parse_cohere,
    parse_deepseek,
    parse_dsml,
    parse_function_tags,
    parse_json_lines,
    parse_python_calls,
    without_call_ids,
)
from mlx_server.engine.generation.harmony_tokens import find_harmony_tokens
from mlx_server.engine.generation.output_parser import TAGGED_JSON, CallFormat, OutputMarkers
from mlx_server.engine.generation.tool_calls import ToolParser

_DSML = "｜DSML｜"
_FORMATS = (
    ("<｜tool▁calls▁begin｜>", CallFormat("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", parse_deepseek)),
    (_DSML, CallFormat(f"<{_DSML}function_calls>", f"</{_DSML}function_calls>", parse_dsml)),
    (_DSML, CallFormat(f"<{_DSML}tool_calls>", f"</{_DSML}tool_calls>", parse_dsml)),
    ("<|START_ACTION|>", CallFormat("<|START_ACTION|>", "<|END_ACTION|>", parse_cohere)),
    ("<function_calls>", CallFormat("<function_calls>", "</function_calls>", parse_python_calls)),
    ("<seed:tool_call>", CallFormat("<seed:tool_call>", "</seed:tool_call>", parse_function_tags)),
    ("<tool_calls>", CallFormat("<tool_calls>", "</tool_calls>", parse_json_lines)),
    ("<TOOLCALL>", CallFormat("<TOOLCALL>", "</TOOLCALL>")),  # Nemotron: a JSON list
    ("<|/tool_call|>", CallFormat("<|tool_call|>", "<|/tool_call|>")),  # Phi-4 mini: a JSON list
    ("<|tool_call|>", CallFormat("<|tool_call|>", "")),  # Granite 3: a JSON list, to the end
    ("<|python_tag|>", CallFormat("<|python_tag|>", "")),  # Llama 3.1: JSON, to the end
)
"""Pairs of a marker and a call format unknown to mlx-lm. A model uses the formats of the first marker listed
here that occurs in its chat template or among its added tokens."""

_THINKING = (
    ("<think>", "</think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
)
_WRAPPERS = ("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>")
"""Special tokens that Cohere's models write around visible text."""


def output_markers(tokenizer: Any) -> OutputMarkers:
    """Return the markers that the model writes around thinking and tool calls, by its tokenizer and chat
    template.

    A model whose format is unknown is expected to write calls as JSON between `<tool_call>` tags, because the
    description of the tools that such a model gets (`describe_tools`) asks for that. Everything else that it
    writes is text.
    """
    template = str(getattr(tokenizer, "chat_template", "") or "")
    added: dict[str, int] = getattr(tokenizer, "added_tokens_encoder", {})
    harmony = find_harmony_tokens(tokenizer)

    def has(marker: str) -> bool:
        return marker in template or marker in added

    thinking = (tokenizer.think_start, tokenizer.think_end) if tokenizer.has_thinking else None
    if thinking is None:
        thinking = next((pair for pair in _THINKING if all(map(has, pair))), None)
    if tokenizer.has_tool_calling:
        parser = _mended(tokenizer.tool_parser)
        own: tuple[CallFormat, ...] = (
            CallFormat(tokenizer.tool_call_start, tokenizer.tool_call_end, parser),
        )
    else:
        hint = next((hint for hint, _ in _FORMATS if has(hint)), None)
        own = tuple(one for its_hint, one in _FORMATS if its_hint == hint)
    tagged = () if any(one.start == TAGGED_JSON.start for one in own) else (TAGGED_JSON,)
    wrappers = tuple(filter(has, _WRAPPERS)) + tuple(getattr(tokenizer, "structural_markers", ()))
    return OutputMarkers(thinking, (*own, *tagged), wrappers, harmony)


def _mended(parser: ToolParser | None) -> ToolParser | None:
    """Return mlx-lm's tool parser, wrapped so that two of its faults are corrected; None if `parser` is None.

    mlx-lm takes the id after Mistral's `[CALL_ID]` for the tool's name. For text that it cannot parse, its
    parser for GLM returns a call of a tool named `unknown`; the wrapped parser raises ValueError instead.
    """
    if parser is None:
        return None

    def parse(text: str, tools: Any) -> Any:
        found = parser(without_call_ids(text), tools)
        if isinstance(found, dict) and found.get("name") == "unknown" and "raw" in found.get("arguments", ()):
            raise ValueError("no call")
        return found

    return parse
