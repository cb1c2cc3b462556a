"""Answers of gpt-oss are separated by the tokens of the Harmony format, streamed, and resumed.

The answers have the forms of the format's documentation (openai/harmony, docs/format.md, Apache-2.0), and
those that llama.cpp's and vLLM's tests collect from the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server.engine.generation.call_formats import output_markers
from mlx_server.engine.generation.detokenizer import Detokenizer
from mlx_server.engine.generation.generation import Generation
from mlx_server.engine.generation.harmony import HarmonyParser, is_header_without_grammar
from mlx_server.engine.generation.harmony_tokens import HarmonyGate, find_harmony_tokens
from mlx_server.engine.generation.output_parser import OutputPiece
from mlx_server.protocol import Token, ToolCall

CONTROLS = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>", "<|return|>", "<|constrain|>"]
FIRST_CONTROL = 0x110000
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("weather", "time.now")]
OSLO = ToolCall("weather", {"city": "Oslo"})
ARGUMENTS = '{"city": "Oslo"}'
PROMPT_END = "<|start|>assistant"


class HarmonyTokenizer:
    """Makes a token of each letter, and of each control in `text` if it is encoded as a prompt is."""

    has_thinking = has_tool_calling = False
    chat_template = ""

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        return {name: FIRST_CONTROL + i for i, name in enumerate(CONTROLS)}

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        vocabulary = self.added_tokens_encoder
        parts = [part for part in re.split("(" + "|".join(map(re.escape, vocabulary)) + ")", text) if part]
        return [
            token
            for part in parts
            for token in ([vocabulary[part]] if part in vocabulary else map(ord, part))
        ]


TOKENIZER = HarmonyTokenizer()
found = find_harmony_tokens(TOKENIZER)
assert found is not None
TOKENS = found


def decode(ids: Sequence[int]) -> str:
    return "".join(chr(i) if i < FIRST_CONTROL else CONTROLS[i - FIRST_CONTROL] for i in ids)


def generation(tool_choice="auto", prompt=PROMPT_END, stop=()) -> Generation:
    parser = HarmonyParser(TOKENS, tool_choice, TOOLS)
    ids = TOKENIZER.encode(prompt)
    parser.begin_after(ids, decode)
    return Generation("r", ids, 10**6, TOKENS.ends_of_answer, Detokenizer(decode, stop), 0.0, parser=parser)


def joined(events) -> OutputPiece:
    piece = OutputPiece()
    for event in events:
        piece += OutputPiece(event.text, event.thinking or "", event.tool_calls or ())
    return piece


def answer(text: str, **how) -> OutputPiece:
    """Return the whole answer `text`, generated token by token up to the end of `text`."""
    subject = generation(**how)
    events = []
    for token in TOKENIZER.encode(text):
        events += subject.accept(token, 1.0)
        if subject.done:
            return joined(events)
    return joined([*events, subject.finish("length", 1.0)])


CALL = "<|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>" + ARGUMENTS
ANSWERS = {
    "<|channel|>final<|message|>Hello<|return|>": OutputPiece("Hello"),
    "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes": OutputPiece(
        "Yes", "Hm."
    ),
    f"<|channel|>analysis<|message|>Hm.<|end|>{CALL}<|call|>": OutputPiece("", "Hm.", (OSLO,)),
    f"{CALL.removeprefix(PROMPT_END)}<|call|>": OutputPiece(tool_calls=(OSLO,)),
    f" to=functions.weather<|channel|>commentary json<|message|>{ARGUMENTS}<|call|>": OutputPiece(
        tool_calls=(OSLO,)
    ),
    f"<|channel|>commentary to=functions.weather<|constrain|>json<|message|>{ARGUMENTS}": OutputPiece(
        tool_calls=(OSLO,)
    ),
    f"<|channel|>analysis to=functions.weather code<|message|>{ARGUMENTS}<|call|>": OutputPiece(
        tool_calls=(OSLO,)
    ),
    f"<|channel|>commentary to=weather<|message|>{ARGUMENTS}<|call|>": OutputPiece(tool_calls=(OSLO,)),
    "<|channel|>commentary to=functions.time.now<|message|><|call|>": OutputPiece(
        tool_calls=(ToolCall("time.now", {}),)
    ),
    f"<|channel|>commentary<|message|>I look it up.<|end|>{CALL}<|call|>": OutputPiece(
        "I look it up.", tool_calls=(OSLO,)
    ),
    "<|channel|>commentary<|message|>One<|end|><|start|>assistant<|channel|>final<|message|>Two": OutputPiece(
        "One\n\nTwo"
    ),
    "<|channel|>analysis<|message|>A<|end|><|channel|>analysis<|message|>B<|channel|>final<|message|>C": (
        OutputPiece("C", "A\n\nB")
    ),
    "<|channel|>final <|constrain|>json<|message|>{}<|return|>": OutputPiece("{}"),
    "<|message|>No channel<|end|>": OutputPiece("No channel"),
    "Plain text, no format": OutputPiece("Plain text, no format"),
    " to": OutputPiece("to"),
    "<|channel|>final<|message|>Yes<|end|><|start|>assist": OutputPiece("Yes"),
    "<|channel|>unknown<|message|>Shown": OutputPiece("Shown"),
    "<|channel|>commentary to=functions.weather<|message|>{broken<|call|>": OutputPiece("{broken"),
    '<|channel|>commentary to=functions.weather<|message|>{"a": NaN}<|call|>': OutputPiece('{"a": NaN}'),
    "<|channel|>commentary to=assistant<|message|>Not a tool": OutputPiece("Not a tool"),
    "<|channel|>ana": OutputPiece(),
    "": OutputPiece(),
}


@pytest.mark.parametrize("text", ANSWERS)
def test_harmony_answer_is_separated_into_text_thinking_and_tool_calls(text):
    assert answer(text) == ANSWERS[text]


def test_harmony_markers_written_with_ordinary_tokens_are_text():
    """A model that explains its own format writes these words."""
    subject = generation()
    events = []
    explained = list(map(ord, "<|end|> ends a message"))
    for token in [*TOKENIZER.encode("<|channel|>final<|message|>"), *explained]:
        events += subject.accept(token, 1.0)
    assert joined([*events, subject.finish("length", 1.0)]).text == "<|end|> ends a message"


def test_harmony_tool_call_is_text_if_tool_choice_is_none():
    assert answer(CALL.removeprefix(PROMPT_END) + "<|call|>", tool_choice="none") == OutputPiece(ARGUMENTS)


@pytest.mark.parametrize("header", ["<|channel|>final", "<|channel|>commentary to=functions.weather json"])
def test_harmony_required_tool_call_is_found_in_any_message_after_the_thinking(header):
    """With a required call, the grammar makes the model write the tool's name as a part of the JSON."""
    call = json.dumps({"name": "weather", "arguments": {"city": "Oslo"}})
    thought = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
    assert answer(f"{thought}{header}<|message|>{call}", tool_choice="required") == OutputPiece(
        "", "Hm.", (OSLO,)
    )
    assert answer(f"{header}<|message|>{call[:20]}", tool_choice="required") == OutputPiece(call[:20])


def test_harmony_answer_continues_a_message_that_the_prompt_has_begun():
    prompt = "<|start|>user<|message|>Hi<|end|><|start|>assistant<|channel|>final<|message|>Once upon"
    assert answer(" a time<|return|>", prompt=prompt) == OutputPiece(" a time")


def test_harmony_stop_string_ends_the_answer_but_is_not_matched_across_messages():
    text = "<|channel|>final<|message|>One STOP two"
    assert answer(text, stop=["STOP"]).text == "One "
    divided = "<|channel|>commentary<|message|>ST<|end|><|channel|>final<|message|>OP"
    assert answer(divided, stop=["STOP"]).text == "ST\n\nOP"


def test_harmony_reasoning_tokens_count_the_tokens_of_the_thinking():
    subject = generation()
    for token in TOKENIZER.encode(
        "<|channel|>analysis<|message|>abc<|end|><|start|>assistant<|channel|>final<|message|>x"
    ):
        subject.accept(token, 1.0)
    assert subject.finish("stop", 1.0).usage.reasoning_tokens == 4, "the text, and the token that begins it"


PARTS = [
    *CONTROLS,
    "analysis",
    "commentary to=functions.weather json",
    "final",
    "assistant",
    ARGUMENTS,
    "a",
    " ",
]
STREAMS = st.lists(st.sampled_from(PARTS), max_size=14).map("".join)


@given(STREAMS | st.sampled_from(sorted(ANSWERS)), st.data(), st.sampled_from(["auto", "none", "required"]))
def test_harmony_answer_resumed_at_any_token_equals_the_uninterrupted_answer(text, data, tool_choice):
    tokens = TOKENIZER.encode(text)
    whole = generation(tool_choice)
    events = []
    for token in tokens:
        events += whole.accept(token, 1.0)
        if whole.done:
            break
    sent = [event.token for event in events if isinstance(event, Token)]
    end = [] if whole.done else [whole.finish("length", 1.0)]
    cut = data.draw(st.integers(0, len(sent)))
    resumed = generation(tool_choice)
    assert resumed.replay(sent[:cut], 1.0) is None
    later = []
    for token in tokens[cut:]:
        later += resumed.accept(token, 1.0)
        if resumed.done:
            break
    later += [] if resumed.done else [resumed.finish("length", 1.0)]
    assert joined([*events[:cut], *later]) == joined([*events, *end])


@given(st.text("ab{}\n", max_size=20), st.lists(st.integers(1, 5), max_size=20))
def test_harmony_text_parsed_in_any_pieces_gives_the_same_answer(text, sizes):
    def parsed(pieces: list[str]) -> OutputPiece:
        parser = HarmonyParser(TOKENS, "auto", TOOLS)
        piece = (
            parser.push_control(TOKENS.channel) + parser.push("final") + parser.push_control(TOKENS.message)
        )
        for part in pieces:
            piece += parser.push(part)
        return piece + parser.flush()

    pieces, rest = [], text
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    assert parsed([*pieces, rest]) == parsed([text]) == OutputPiece(text)


@pytest.mark.parametrize(
    ("text", "opened"),
    [
        ("<|channel|>analysis<|message|>{", False),
        ("<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>final<|message|>", True),
        ("<|channel|>final <|constrain|>json<|message|>", True),
        ("<|channel|>commentary to=functions.weather<|message|>", True),
        ("<|message|>", True),
        ("<|channel|>final", False),
    ],
)
def test_harmony_grammar_becomes_active_only_after_the_thinking(text, opened):
    gate = HarmonyGate(TOKENS)
    assert [gate.opens_after(token) for token in TOKENIZER.encode(text)][-1] is opened


@pytest.mark.parametrize(
    ("text", "opened"),
    [
        ("<|channel|>commentary to=functions.weather <|constrain|>json<|message|>", False),
        (" to=functions.weather<|channel|>commentary json<|message|>", False),
        (f" to=functions.weather<|channel|>commentary<|message|>{ARGUMENTS}", False),
        ("<|channel|>commentary to=f<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>", True),
        ("<|channel|>commentary<|message|>", False),
        ("<|channel|>commentary<|message|>I ask.<|end|><|channel|>final<|message|>", True),
        (" to=user<|channel|>final<|message|>", True),
        ("<|channel|>final<|message|>", True),
        ("<|channel|>analysis<|message|>{", False),
    ],
)
def test_harmony_grammar_of_an_answer_does_not_apply_to_calls_and_preambles_that_the_model_may_choose(
    text, opened
):
    """The arguments of a call were made in the form of the answer, or of a whole call with its name. The
    preamble before a call had to be JSON, and a call in it was sent as text.
    """
    gate = HarmonyGate(TOKENS, lambda header: is_header_without_grammar(decode(header)))
    assert [gate.opens_after(token) for token in TOKENIZER.encode(text)][-1] is opened


@pytest.mark.parametrize(
    ("text", "piece"),
    [
        (f"<|channel|>commentary<|message|>I ask.<|end|>{CALL}<|call|>", OutputPiece("", "I ask.", (OSLO,))),
        (
            "<|channel|>commentary<|message|>So.<|end|><|start|>assistant<|channel|>final<|message|>{}",
            OutputPiece("{}", "So."),
        ),
        ('<|channel|>final<|message|>{"name": "weather"}', OutputPiece('{"name": "weather"}')),
    ],
)
def test_harmony_answer_with_a_schema_has_no_visible_text_but_the_final_message(text, piece):
    """A preamble before the answer would break the schema that the client has given."""
    subject = HarmonyParser(TOKENS, "auto", TOOLS, has_schema=True)
    subject.begin_after(TOKENIZER.encode(PROMPT_END), decode)
    parsed = OutputPiece()
    for token in TOKENIZER.encode(text):
        parsed += subject.push_control(token) if token in subject.control_tokens else subject.push(chr(token))
    assert parsed + subject.flush() == piece


def test_harmony_format_is_chosen_by_the_special_tokens_of_the_tokenizer():
    assert output_markers(TOKENIZER).harmony == TOKENS
    assert output_markers(TOKENIZER).thinks


MUSE_CONTROLS = ["<|start|>", "<|message|>", "<|eom|>", "<|eot|>"]


class MuseTokenizer(HarmonyTokenizer):
    has_tool_calling = True
    tool_call_start, tool_call_end = "<atem:function_calls>", "</atem:function_calls>"

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        return {name: FIRST_CONTROL + i for i, name in enumerate(MUSE_CONTROLS)}

    @staticmethod
    def tool_parser(text: str, tools: Any) -> dict[str, Any]:
        return {"name": "weather", "arguments": {"city": text}}


MUSE_CALL = "<|start|>assistant to=weather<|message|><atem:function_calls>Oslo</atem:function_calls>"


@pytest.mark.parametrize(
    ("text", "piece", "opens"),
    [
        (
            " to=self<|message|>Hm.<|eom|><|start|>assistant to=user<|message|>Yes.<|eot|>",
            OutputPiece("Yes.", "Hm."),
            True,
        ),
        (f" to=self<|message|>Hm.<|eom|>{MUSE_CALL}<|eot|>", OutputPiece("", "Hm.", (OSLO,)), True),
        (" to=self<|message|>Hm", OutputPiece("", "Hm"), False),
        (" to=user<|message|>Yes", OutputPiece("Yes"), True),
    ],
)
def test_muse_spark_output_is_split_into_text_and_thinking_and_tool_calls_by_each_messages_recipient(
    text, piece, opens
):
    """The headers of Muse Spark's messages, such as `to=self`, were once shown as text."""
    markers = output_markers(MuseTokenizer())
    assert markers.harmony
    ids = MuseTokenizer().encode(text)
    parser = HarmonyParser(markers.harmony, "auto", TOOLS, markers.calls[0])
    parser.begin_after(MuseTokenizer().encode(PROMPT_END), decode)
    parsed, gate = OutputPiece(), HarmonyGate(markers.harmony)
    for token in ids:
        parsed += parser.push_control(token) if token in parser.control_tokens else parser.push(chr(token))
    assert parsed + parser.flush() == piece
    assert any(gate.opens_after(token) for token in ids) is opens
