"""Models that think, without one: marks from tokenizer or template, and what the template is told."""

from types import SimpleNamespace
from typing import Any

import pytest

from mlx_server.engine.generation.prompts.render import prompt_tokens
from mlx_server.engine.generation.prompts.tool_prompt import told
from mlx_server.engine.generation.tool_calls import may_become_call, parse
from mlx_server.engine.models.loading import marks_of
from mlx_server.protocol import Generate, ToolCall

TOOL = {"type": "function", "function": {"name": "weather", "description": "Tells the weather."}}


def tokenizer(**more: Any) -> Any:
    known = {"has_thinking": False, "has_tool_calling": False, "chat_template": "plain", "bos_token": None}
    return SimpleNamespace(has_chat_template=True, **(known | more))


def test_marks_are_the_tokenizers_own():
    parser = object()
    marks = marks_of(
        tokenizer(
            has_thinking=True,
            think_start="<t>",
            think_end="</t>",
            has_tool_calling=True,
            tool_call_start="[C]",
            tool_call_end="",
            tool_parser=parser,
        )
    )
    assert (marks.think, marks.call, marks.parser) == (("<t>", "</t>"), ("[C]", ""), parser)


def test_marks_of_a_thought_may_stand_in_the_template_alone():
    assert marks_of(tokenizer(chat_template="x<think>y</think>")).think == ("<think>", "</think>")
    assert marks_of(tokenizer()).think is None


def rendered(op: Generate, **more: Any) -> dict[str, Any]:
    """What the template is given."""
    seen: dict[str, Any] = {}

    def apply_chat_template(messages: list, **variables: Any) -> list[int]:
        seen.update(variables, messages=messages)
        return [1]

    prompt_tokens(op, tokenizer(apply_chat_template=apply_chat_template, **more), 512)
    return seen


def chat(**more: Any) -> Generate:
    return Generate("r", "m", "chat", messages=({"role": "user", "content": "Hi"},), **more)


@pytest.mark.parametrize("think", [True, False])
def test_think_reaches_the_template(think):
    assert rendered(chat(think=think))["enable_thinking"] is think
    assert "enable_thinking" not in rendered(chat())


def test_tools_go_to_a_template_that_knows_them():
    seen = rendered(chat(tools=(TOOL,)), chat_template="{% if tools %}")
    assert seen["tools"] == [TOOL]
    assert len(seen["messages"]) == 1


def test_tools_are_told_where_a_template_knows_none():
    seen = rendered(chat(tools=(TOOL,)))
    assert seen["tools"] is None
    assert seen["messages"][0]["role"] == "system"
    assert '"weather"' in seen["messages"][0]["content"]


def test_calls_and_results_are_told_where_they_stood():
    call = {"id": "c", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    turns: list[dict[str, Any]] = [
        {"role": "system", "content": "Be kind."},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "rain", "tool_call_id": "c"},
    ]
    system, asked, result = told(turns, [TOOL])
    assert system["content"].startswith("Be kind.")
    assert asked["content"].startswith("<tool_call>") and "Oslo" in asked["content"]
    assert result == {"role": "user", "content": "<tool_response>\nrain\n</tool_response>"}


def test_parser_that_finds_a_call_without_arguments_gives_none_of_them():
    assert parse('{"name": "weather"}', [TOOL]) == (ToolCall("weather", {}),)
    assert parse('[{"name": "weather"}, 3]', [TOOL]) == ()


@pytest.mark.parametrize("text", ["", "  [", '{"na', '[{ "name": "x', '{"type": "function"'])
def test_start_of_a_call_is_held(text):
    assert may_become_call(text)


@pytest.mark.parametrize("text", ["The", '{"city"', "[1", "{}"])
def test_start_of_anything_else_is_not_held(text):
    assert not may_become_call(text)
