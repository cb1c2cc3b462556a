"""Calls and thinking in the formats for which mlx-lm has no parser, chosen by the chat template.

The outputs have the forms that these models are known to write, as collected in the tests of llama.cpp, vLLM
and Ollama, and shown by the models' own templates.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server.engine.generation.call_formats import output_markers
from mlx_server.engine.generation.output_parser import OutputParser, OutputPiece
from mlx_server.protocol import ToolCall
from tests.models.model_templates import CHATML, COHERE, DEEPSEEK_R1, DEEPSEEK_V31, OLMO

TOOLS = [{"type": "function", "function": {"name": name}} for name in ("weather", "clock")]
OSLO, CLOCK = ToolCall("weather", {"city": "Oslo"}), ToolCall("clock", {})
DSML = "{{ '<｜DSML｜function_calls></｜DSML｜function_calls>' }}<think></think>"


def tokenizer(template: str, **more: Any) -> Any:
    return SimpleNamespace(chat_template=template, has_thinking=False, has_tool_calling=False, **more)


def parse(template: str, text: str, size: int = 10**6, tool_choice: Any = "auto") -> OutputPiece:
    parser = OutputParser(output_markers(tokenizer(template)), tool_choice, TOOLS)
    piece = OutputPiece()
    for start in range(0, len(text), size):
        piece += parser.push(text[start : start + size])
    return piece + parser.flush()


R1_CALL = (
    '<｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{"city": "Oslo"}\n```<｜tool▁call▁end｜>'
)
V31_CALL = '<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "Oslo"}<｜tool▁call▁end｜>'
V31_CLOCK = "<｜tool▁call▁begin｜>clock<｜tool▁sep｜>{}<｜tool▁call▁end｜>"


def dsml_call(name: str, is_text: str, value: str) -> str:
    argument = f'<｜DSML｜parameter name="{name}" string="{is_text}">{value}</｜DSML｜parameter>'
    return f'<｜DSML｜invoke name="weather">\n{argument}\n</｜DSML｜invoke>'


DSML_CALL, DSML_NUMBER = dsml_call("city", "true", "Oslo"), dsml_call("n", "false", "[1]")
UNSAFE = "<function_calls>weather(a=__import__('os').getcwd())</function_calls>"
NO_CALL = "<｜tool▁calls▁begin｜>nothing<｜tool▁calls▁end｜>"
OTHERS = NO_CALL + " and <|START_ACTION|>"
ACTION = '{"tool_call_id": "0", "tool_name": "weather", "parameters": {"city": "Oslo"}}'

OUTPUTS = [
    (
        DEEPSEEK_R1,
        f"I look.<｜tool▁calls▁begin｜>{R1_CALL}<｜tool▁calls▁end｜>",
        OutputPiece("I look.", "", (OSLO,)),
    ),
    (
        DEEPSEEK_R1,
        f"<think>\nHm\n</think>\n\n<｜tool▁calls▁begin｜>{R1_CALL}\n{R1_CALL}<｜tool▁calls▁end｜>",
        OutputPiece("", "Hm", (OSLO, OSLO)),
    ),
    (DEEPSEEK_R1, f"<｜tool▁calls▁begin｜>{R1_CALL}", OutputPiece(tool_calls=(OSLO,))),
    (DEEPSEEK_R1, NO_CALL, OutputPiece(NO_CALL)),
    (
        DEEPSEEK_R1,
        '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>',
        OutputPiece(tool_calls=(CLOCK,)),
    ),
    (
        DEEPSEEK_V31,
        f"<｜tool▁calls▁begin｜>{V31_CALL}{V31_CLOCK}<｜tool▁calls▁end｜>",
        OutputPiece(tool_calls=(OSLO, CLOCK)),
    ),
    (
        DSML,
        f"Yes.\n\n<｜DSML｜function_calls>\n{DSML_CALL}\n</｜DSML｜function_calls>",
        OutputPiece("Yes.\n\n", "", (OSLO,)),
    ),
    (
        DSML,
        f"<｜DSML｜function_calls>\n{DSML_NUMBER}\n</｜DSML｜function_calls>",
        OutputPiece(tool_calls=(ToolCall("weather", {"n": [1]}),)),
    ),
    (
        COHERE,
        f"<|START_THINKING|>Plan<|END_THINKING|><|START_ACTION|>[\n{ACTION}\n]<|END_ACTION|>",
        OutputPiece("", "Plan", (OSLO,)),
    ),
    (COHERE, "<|START_RESPONSE|>Hello there<|END_RESPONSE|>", OutputPiece("Hello there")),
    (COHERE, "<|START_THINKING|>Plan<|END_THINKING|><|START_RESPONSE|>Hello", OutputPiece("Hello", "Plan")),
    (
        OLMO,
        '<function_calls>weather(city="Oslo")\nclock()</function_calls>',
        OutputPiece(tool_calls=(OSLO, CLOCK)),
    ),
    (OLMO, "Now.<function_calls>weather(city='Oslo')</function_calls>", OutputPiece("Now.", "", (OSLO,))),
    (
        OLMO,
        "<function_calls>weather(a=[1, true, null], b={'c': -2.5})</function_calls>",
        OutputPiece(tool_calls=(ToolCall("weather", {"a": [1, True, None], "b": {"c": -2.5}}),)),
    ),
    (
        OLMO,
        "<function_calls>weather('Oslo')</function_calls>",
        OutputPiece("<function_calls>weather('Oslo')</function_calls>"),
    ),
    (OLMO, UNSAFE, OutputPiece(UNSAFE)),
    (
        "<TOOLCALL></TOOLCALL>",
        '<TOOLCALL>[{"name": "weather", "arguments": {"city": "Oslo"}}]</TOOLCALL>',
        OutputPiece(tool_calls=(OSLO,)),
    ),
    (
        "<|tool_call|>",
        '<|tool_call|>[{"name": "weather", "arguments": {"city": "Oslo"}}]',
        OutputPiece(tool_calls=(OSLO,)),
    ),
    (
        "<|python_tag|>",
        '<|python_tag|>{"name": "weather", "parameters": {"city": "Oslo"}}',
        OutputPiece(tool_calls=(OSLO,)),
    ),
    (
        DSML,
        f"<｜DSML｜tool_calls>\n{DSML_CALL}\n</｜DSML｜tool_calls>",
        OutputPiece(tool_calls=(OSLO,)),
    ),
    (
        "<seed:tool_call>",
        "<seed:tool_call>\n<function=weather>\n<parameter=city>Oslo</parameter>\n</function>\n</seed:tool_call>",
        OutputPiece(tool_calls=(OSLO,)),
    ),
    (
        "<tool_calls>",
        '<tool_calls>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n{"name": "clock"}\n</tool_calls>',
        OutputPiece(tool_calls=(OSLO, CLOCK)),
    ),
    (
        "<tool_calls>",
        '<tool_calls>[{"name": "weather", "arguments": {"city": "Oslo"}}]</tool_calls>',
        OutputPiece(tool_calls=(OSLO,)),
    ),
    (CHATML, OTHERS, OutputPiece(OTHERS)),
]


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(("template", "text", "piece"), OUTPUTS)
def test_output_in_each_tool_call_format_is_parsed_into_text_and_calls_whatever_its_piece_size(
    template, text, piece, size
):
    assert parse(template, text, size) == piece


def test_cohere_tool_call_stays_text_and_response_markers_are_removed_if_tool_choice_is_none():
    action = f"<|START_ACTION|>[{ACTION}]<|END_ACTION|>"
    assert parse(COHERE, action, tool_choice="none").text == action
    assert parse(COHERE, "<|START_RESPONSE|>Hi<|END_RESPONSE|>", 1, tool_choice="none").text == "Hi"


@pytest.mark.parametrize("number", range(len(OUTPUTS)))
@given(cut=st.integers(0, 200), size=st.integers(1, 9))
def test_truncated_tool_call_output_parsed_in_pieces_equals_output_parsed_at_once(number, cut, size):
    template, text, _ = OUTPUTS[number]
    assert parse(template, text[:cut], size) == parse(template, text[:cut])


def test_output_markers_include_the_tool_call_and_structural_markers_of_mlx_lm():
    known = tokenizer("<|START_ACTION|>", structural_markers=("<|open|>response<|sep|>",))
    known.has_tool_calling, known.tool_call_start, known.tool_call_end, known.tool_parser = (
        True,
        "<c>",
        "</c>",
        None,
    )
    markers = output_markers(known)
    assert [one.start for one in markers.calls] == ["<c>", "<tool_call>"]
    assert "<|open|>response<|sep|>" in markers.wrappers


def with_parser(parser: Any) -> Any:
    known = tokenizer("[TOOL_CALLS]")
    known.has_tool_calling, known.tool_parser = True, parser
    known.tool_call_start, known.tool_call_end = "[TOOL_CALLS]", ""
    return OutputParser(output_markers(known), "auto", TOOLS)


def test_call_id_in_a_mistral_tool_call_is_not_taken_for_the_tool_name():
    """mlx-lm 0.32.2 reads `weather[CALL_ID]abcDEF123[ARGS]{…}` as a call of `abcDEF123`."""
    seen: list[str] = []

    def read(text: str, tools: Any) -> dict[str, Any]:
        seen.append(text)
        return {"name": "weather", "arguments": {}}

    parser = with_parser(read)
    parser.push('[TOOL_CALLS]weather[CALL_ID]abcDEF123[ARGS]{"city": "Oslo"}')
    parser.flush()
    assert seen == ['weather[ARGS]{"city": "Oslo"}']


def test_tool_call_that_the_glm_parser_cannot_read_stays_text():
    """The GLM parser would turn such a text into a call of a tool named `unknown`."""
    parser = with_parser(lambda text, tools: {"name": "unknown", "arguments": {"raw": text}})
    assert parser.push("[TOOL_CALLS]what?") + parser.flush() == OutputPiece("[TOOL_CALLS]what?")
