"""Answers taken apart into thoughts, calls and speech, however they are cut into pieces."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server.engine.generation.output_parser import Marks, OutputParser, OutputPiece
from mlx_server.protocol import ToolCall

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
THINKS = Marks(think=("<think>", "</think>"))
OSLO = ToolCall("weather", {"city": "Oslo"})
CALL = json.dumps({"name": "weather", "arguments": {"city": "Oslo"}})
TAGGED = f"<tool_call>\n{CALL}\n</tool_call>"


def read(text, *, marks=THINKS, calls="auto", thinking=False, size=1):
    reader = OutputParser(marks, calls, TOOLS, thinking)
    out = OutputPiece()
    for start in range(0, len(text), size):
        out += reader.push(text[start : start + size])
    return out + reader.flush()


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
def test_reader_takes_an_answer_apart(text, piece, size):
    assert read(text, size=size) == piece


def test_thought_begun_in_the_prompt_goes_on():
    assert read("hm</think>Yes.", thinking=True) == OutputPiece("Yes.", thinking="hm")


def test_mark_in_the_middle_of_speech_is_speech():
    assert read("Write <think> first", calls="text") == OutputPiece("Write <think> first")


def test_calls_that_nobody_looks_for_are_text():
    assert read(TAGGED, calls="text") == OutputPiece(TAGGED)


def test_answer_that_must_be_a_call_is_one_or_text():
    assert read(CALL, calls="only") == OutputPiece(tool_calls=(OSLO,))
    assert read(CALL[:20], calls="only") == OutputPiece(CALL[:20])


def test_models_own_parser_is_asked_first_and_may_fail():
    def parser(text, tools):
        name, _, city = text.partition(":")
        return [{"name": name, "arguments": {"city": city}}] if city else 1 / 0

    marks = Marks(call=("[CALL]", ""), parser=parser)
    assert read("[CALL]weather:Oslo", marks=marks) == OutputPiece(tool_calls=(OSLO,))
    assert read("[CALL]weather", marks=marks) == OutputPiece("[CALL]weather")


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
def test_how_an_answer_is_cut_does_not_matter(parts, size, thinking, auto):
    calls = "auto" if auto else "text"
    text = "".join(parts)
    assert read(text, size=size, thinking=thinking, calls=calls) == read(
        text, size=1000, thinking=thinking, calls=calls
    )


@given(st.text("<tool_cal>/{}[] ab\n", max_size=40), st.integers(1, 9))
def test_no_text_is_lost_where_there_is_no_call(text, size):
    piece = read(text, marks=Marks(), size=size)
    assert not piece.tool_calls
    assert piece.text in (text, text.lstrip())
