"""Answers are separated into thinking, tool calls and text, wherever they are cut into pieces."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server.engine.generation.output_parser import CallFormat, OutputMarkers, OutputParser, OutputPiece
from mlx_server.protocol import ToolCall

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
THINKS = OutputMarkers(thinking=("<think>", "</think>"))
OSLO = ToolCall("weather", {"city": "Oslo"})
CALL = json.dumps({"name": "weather", "arguments": {"city": "Oslo"}})
TAGGED = f"<tool_call>\n{CALL}\n</tool_call>"


def parse(text, *, markers=THINKS, tool_choice="auto", thinking=False, size=1, has_schema=False):
    """Return the whole answer `text`, parsed in pieces of `size` characters."""
    parser = OutputParser(markers, tool_choice, TOOLS, thinking, has_schema)
    answer = OutputPiece()
    for start in range(0, len(text), size):
        answer += parser.push(text[start : start + size])
    return answer + parser.flush()


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize(
    ("text", "piece"),
    [
        ("Hello <b> there", OutputPiece("Hello <b> there")),
        (f"<think>\nhm\n</think>\n\n{TAGGED}", OutputPiece(thinking="hm", tool_calls=(OSLO,))),
        (f"I ask.\n{TAGGED}\n{TAGGED}\n", OutputPiece("I ask.\n", tool_calls=(OSLO, OSLO))),
        (CALL, OutputPiece(tool_calls=(OSLO,))),
        (f"[{CALL}]", OutputPiece(tool_calls=(OSLO,))),
        ('{"name": "weather", "parameters": "{\\"city\\": \\"Oslo\\"}"}', OutputPiece(tool_calls=(OSLO,))),
        ('{"name": "unknown", "arguments": {}}', OutputPiece('{"name": "unknown", "arguments": {}}')),
        ('{"answer": 42}', OutputPiece('{"answer": 42}')),
        (TAGGED.removesuffix("</tool_call>"), OutputPiece(tool_calls=(OSLO,))),
        (TAGGED[:30], OutputPiece(TAGGED[:30])),
        ("<tool_call>what?</tool_call>", OutputPiece("<tool_call>what?</tool_call>")),
        ("<think>unfinished <b", OutputPiece(thinking="unfinished <b")),
        ("grade: <", OutputPiece("grade: <")),
        ("<thin", OutputPiece("<thin")),
        ("", OutputPiece()),
    ],
)
def test_answer_is_separated_into_text_thinking_and_tool_calls_whatever_its_piece_size(text, piece, size):
    assert parse(text, size=size) == piece


def test_output_up_to_the_end_marker_is_parsed_as_thinking_if_the_prompt_already_opened_the_thinking():
    assert parse("hm</think>Yes.", thinking=True) == OutputPiece("Yes.", thinking="hm")


def test_thinking_marker_within_text_is_text():
    assert parse("Write <think> first", tool_choice="none") == OutputPiece("Write <think> first")


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize(
    ("text", "piece"),
    [
        (f"<think>Look it up. {TAGGED}", OutputPiece(thinking="Look it up.", tool_calls=(OSLO,))),
        (f"<think>a{TAGGED}</think>Yes", OutputPiece("Yes", "a", (OSLO,))),
        ("<think>in <tool_call> tags?</think>Yes", OutputPiece("Yes", "in <tool_call> tags?")),
        ("<think>a <tool_call>x</tool_call> b</think>Y", OutputPiece("Y", "a <tool_call>x</tool_call> b")),
        ("<think>a\n<tool_call>x", OutputPiece(thinking="a\n<tool_call>x")),
        (
            '<think><tool_call>{"name": "other"}</tool_call>',
            OutputPiece(thinking='<tool_call>{"name": "other"}</tool_call>'),
        ),
    ],
)
def test_unfinished_tool_call_within_thinking_is_a_call_only_if_it_can_be_parsed(text, piece, size):
    """Models forget to end their thinking before they call a tool; they also think about how to call it."""
    assert parse(text, size=size) == piece


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize(
    "text",
    [
        '{"name": "weather", "reason": "x"}',
        '{"name": "weather"}',
        '{"name": "weather", "parameters": {}}',
        '{"name": "weather", "arguments": "{}"}',
        '{"name": "weather", "arguments": {}, "why": 1}',
        '[{"name": "weather", "arguments": {}}, {"name": "weather"}]',
        '{"function": {"name": "weather", "arguments": {}}}',
        json.dumps({"doc": f"Write {TAGGED} to call"}),
        '{"doc": "<tool_call>"}',
    ],
)
def test_answer_with_a_schema_that_only_resembles_a_call_is_sent_as_it_is(text, size):
    """An answer whose field `name` was an offered tool, or whose text explained calls, became a call."""
    assert parse(text, size=size, has_schema=True) == OutputPiece(text)


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_call_beside_an_answer_schema_is_found_as_json_or_within_the_thinking(size):
    assert parse(CALL, size=size, has_schema=True) == OutputPiece(tool_calls=(OSLO,))
    assert parse(f"[{CALL}, {CALL}]", size=size, has_schema=True) == OutputPiece(tool_calls=(OSLO, OSLO))
    thought = parse(f"Hm. {TAGGED}", size=size, has_schema=True, thinking=True)
    assert thought == OutputPiece(thinking="Hm.", tool_calls=(OSLO,))
    both = parse(f"Hm. {TAGGED} So:</think>{CALL}", size=size, has_schema=True, thinking=True)
    assert both.tool_calls == (OSLO, OSLO) and not both.text


@pytest.mark.parametrize(
    "begin",
    [
        '{"doc": "Write <tool_call> ',
        '{"type": "a", ',
        '{"id": 1, ',
        '{"name": "Anna", ',
        '[ {"name": "weather", "reason"',
    ],
)
def test_answer_with_a_schema_that_cannot_become_a_call_is_streamed(begin):
    """A marker of calls within a string stopped the stream until the answer's end."""
    parser = OutputParser(THINKS, "auto", TOOLS, has_schema=True)
    assert parser.push(begin) == OutputPiece(begin)


def test_tool_call_is_text_if_tool_choice_is_none():
    assert parse(TAGGED, tool_choice="none") == OutputPiece(TAGGED)


def test_required_tool_call_that_is_truncated_stays_text():
    assert parse(CALL, tool_choice="required") == OutputPiece(tool_calls=(OSLO,))
    assert parse(CALL[:20], tool_choice="required") == OutputPiece(CALL[:20])


def test_tool_call_that_the_models_parser_cannot_parse_is_returned_as_text():
    def parser(text, tools):
        name, _, city = text.partition(":")
        return [{"name": name, "arguments": {"city": city}}] if city else 1 / 0

    markers = OutputMarkers(calls=(CallFormat("[CALL]", "", parser),))
    assert parse("[CALL]weather:Oslo", markers=markers) == OutputPiece(tool_calls=(OSLO,))
    assert parse("[CALL]weather", markers=markers) == OutputPiece("[CALL]weather")


PARTS = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    CALL,
    "\n",
    " ",
    "{",
    "a",
    "<",
    '{"name"',
    "[1]",
]


@given(st.lists(st.sampled_from(PARTS), max_size=8), st.integers(1, 9), st.booleans(), st.booleans())
def test_answer_parsed_in_any_pieces_equals_the_answer_parsed_at_once(parts, size, thinking, auto):
    tool_choice = "auto" if auto else "none"
    text = "".join(parts)
    assert parse(text, size=size, thinking=thinking, tool_choice=tool_choice) == parse(
        text, size=1000, thinking=thinking, tool_choice=tool_choice
    )


@given(st.text("<tool_cal>/{}[] ab\n", max_size=40), st.integers(1, 9))
def test_answer_without_a_tool_call_is_sent_completely(text, size):
    piece = parse(text, markers=OutputMarkers(), size=size)
    assert not piece.tool_calls
    assert piece.text in (text, text.lstrip())
