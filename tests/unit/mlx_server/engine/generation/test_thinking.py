"""Markers of thinking and tool calls, and what a chat template receives of both. No model is loaded."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from mlx_server.engine.generation.call_formats import output_markers
from mlx_server.engine.generation.output_parser import TAGGED_JSON
from mlx_server.engine.generation.prompts.prompt_maker import PromptMaker
from mlx_server.engine.generation.prompts.tool_prompt import describe_tools
from mlx_server.engine.generation.tool_calls import are_all_offered, may_begin_tool_call, parse_tool_calls
from mlx_server.protocol import Generate, ToolCall

TOOL = {"type": "function", "function": {"name": "weather", "description": "Tells the weather."}}


class FakeTokenizer(SimpleNamespace):
    def __len__(self) -> int:
        return 100


def tokenizer(**more: Any) -> Any:
    defaults = {"has_thinking": False, "has_tool_calling": False, "chat_template": "plain", "bos_token": None}
    return FakeTokenizer(has_chat_template=True, **(defaults | more))


def test_output_markers_are_taken_from_the_tokenizer():
    markers = output_markers(
        tokenizer(
            has_thinking=True,
            think_start="<t>",
            think_end="</t>",
            has_tool_calling=True,
            tool_call_start="[C]",
            tool_call_end="",
            tool_parser=lambda text, tools: [(text, tools)],
        )
    )
    own, tagged = markers.calls
    assert (markers.thinking, own.start, own.end) == (("<t>", "</t>"), "[C]", "")
    assert tagged == TAGGED_JSON
    assert own.parser and own.parser("x", [TOOL]) == [("x", [TOOL])]


def test_thinking_markers_are_found_in_the_template_if_the_tokenizer_has_none():
    assert output_markers(tokenizer(chat_template="x<think>y</think>")).thinking == ("<think>", "</think>")
    assert output_markers(tokenizer()).thinking is None


def rendered(op: Generate, **more: Any) -> dict[str, Any]:
    """Return the arguments that the template receives."""
    seen: dict[str, Any] = {}

    def apply_chat_template(messages: list, **variables: Any) -> list[int]:
        seen.update(variables, messages=messages)
        return [1]

    PromptMaker(tokenizer(apply_chat_template=apply_chat_template, **more), None, 512).tokens(op)
    return seen


def chat(**more: Any) -> Generate:
    return Generate("r", "m", "chat", messages=({"role": "user", "content": "Hi"},), **more)


@pytest.mark.parametrize("think", [True, False])
def test_think_option_is_passed_to_the_template_only_if_the_client_sets_it(think):
    assert rendered(chat(think=think))["enable_thinking"] is think
    assert "enable_thinking" not in rendered(chat())


def test_tools_are_passed_to_a_template_that_uses_tools():
    seen = rendered(chat(tools=(TOOL,)), chat_template="{% if tools %}")
    assert seen["tools"] == [TOOL]
    assert len(seen["messages"]) == 1


def test_tools_are_described_in_a_system_message_if_the_template_does_not_use_tools():
    seen = rendered(chat(tools=(TOOL,)))
    assert seen["tools"] is None
    assert seen["messages"][0]["role"] == "system"
    assert '"weather"' in seen["messages"][0]["content"]


def test_past_tool_calls_and_results_are_replaced_by_text_at_the_same_position_by_describe_tools():
    call = {"id": "c", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    turns: list[dict[str, Any]] = [
        {"role": "system", "content": "Be kind."},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "rain", "tool_call_id": "c"},
    ]
    system, asked, result = describe_tools(turns, [TOOL])
    assert system["content"].startswith("Be kind.")
    assert asked["content"].startswith("<tool_call>") and "Oslo" in asked["content"]
    assert result == {"role": "user", "content": "<tool_response>\nrain\n</tool_response>"}


def test_parse_tool_calls_accepts_a_call_without_arguments_and_refuses_a_list_that_contains_a_non_call():
    assert parse_tool_calls('{"name": "weather"}', [TOOL]) == (ToolCall("weather", {}),)
    assert parse_tool_calls('[{"name": "weather"}, 3]', [TOOL]) == ()


@pytest.mark.parametrize("text", ["", "  [", '{"na', '[{ "name": "x', '{"type": "function"'])
def test_may_begin_tool_call_is_true_for_the_start_of_a_call(text):
    assert may_begin_tool_call(text)


@pytest.mark.parametrize("text", ["The", '{"city"', "[1", "{}"])
def test_may_begin_tool_call_is_false_for_text_that_cannot_be_the_start_of_a_tool_call(text):
    assert not may_begin_tool_call(text)


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, 1 + 2j, ..., {(1, 2): 3}, float("nan"), "\ud83d", (1,)])
def test_parse_tool_calls_rejects_arguments_that_json_cannot_express_but_turns_a_tuple_into_a_list(value):
    calls = parse_tool_calls("x", [TOOL], lambda text, tools: {"name": "weather", "arguments": {"a": value}})
    assert calls == ((ToolCall("weather", {"a": [1]}),) if value == (1,) else ())


NOT_PORTABLE = [
    "NaN",
    "-Infinity",
    "1e999",
    '"\\ud83d"',
    '"\ud83d"',
    '{"\\ude00": 1}',
    "1" + 400 * "0",
    "[" * 600 + "]" * 600,
    "[" * 100_000,
]
"""Arguments that Python's JSON reader takes and other readers do not, or that nobody takes."""


@pytest.mark.parametrize("value", NOT_PORTABLE)
def test_parse_tool_calls_returns_no_call_for_arguments_that_some_json_readers_refuse_such_as_nan(value):
    """A model that wrote NaN in a call's arguments once ended three engines, one after the other."""
    arguments = '{"a": ' + value + "}"
    assert parse_tool_calls('{"name": "weather", "arguments": ' + arguments + "}", [TOOL]) == ()
    as_string = json.dumps({"name": "weather", "arguments": arguments})
    assert parse_tool_calls(as_string, [TOOL]) == ()


def test_parse_tool_calls_with_a_lone_surrogate_in_the_name_returns_no_call():
    assert parse_tool_calls('{"name": "weather\\ud83d"}', [TOOL]) == ()


def test_parse_tool_calls_keeps_unchanged_arguments_that_every_json_reader_accepts():
    arguments = {"a": [1, -2.5, True, None, "\U0001f600", {"b": 10**300}], "c": "[" * 600}
    call = json.dumps({"name": "weather", "arguments": arguments})
    assert parse_tool_calls(call, [TOOL]) == (ToolCall("weather", arguments),)


def test_tool_call_does_not_count_as_offered_if_no_offered_tool_has_a_function_name():
    calls = (ToolCall("weather", {}),)
    assert not are_all_offered(calls, [{"function": "weather"}, {"type": "web_search"}, {"function": {}}])
