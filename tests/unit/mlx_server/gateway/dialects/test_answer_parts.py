"""The parts of an answer: text, thoughts, numbered tool calls, and log probabilities with their text."""

from __future__ import annotations

from mlx_server import protocol
from mlx_server.gateway.dialects.answer_parts import AnswerAssembler, AnswerPart, joined

USAGE = protocol.Usage(7, 3)
LOGPROBS = tuple(protocol.Logprobs(protocol.TokenLogprob(text, (97,), -0.5)) for text in "abc")
CALL = protocol.ToolCall("weather", {"city": "Oslo"})


def _token(index: int, text: str, **fields) -> protocol.Token:
    return protocol.Token("r", 1, text, index, **fields)


def test_logprobs_of_a_token_without_text_are_sent_with_the_next_part():
    assembler = AnswerAssembler("r")
    held_back = assembler.part_of(_token(0, "", logprobs=LOGPROBS[0]))
    assert not held_back.has_content
    assert assembler.part_of(_token(1, "ab", logprobs=LOGPROBS[1])).logprobs == LOGPROBS[:2]
    assert assembler.part_of(_token(2, "c", logprobs=LOGPROBS[2])).logprobs == LOGPROBS[2:]


def test_tool_calls_are_numbered_through_the_whole_answer():
    assembler = AnswerAssembler("r")
    first = assembler.part_of(_token(0, "", tool_calls=(CALL, CALL)))
    last = assembler.part_of(protocol.Done("r", "tool_calls", USAGE, tool_calls=(CALL,)))
    calls = [*first.tool_calls, *last.tool_calls]
    assert [(call.id, call.index) for call in calls] == [("call_r_0", 0), ("call_r_1", 1), ("call_r_2", 2)]
    assert (calls[0].name, calls[0].arguments) == (CALL.name, CALL.arguments)


def test_joined_parts_of_an_answer_omit_the_logprobs_of_a_last_part_without_text():
    done = protocol.Done("r", "stop", USAGE)
    parts = [AnswerPart("a", logprobs=LOGPROBS[:1]), AnswerPart(logprobs=LOGPROBS[1:], done=done)]
    assert joined(parts) == AnswerPart("a", logprobs=LOGPROBS[:1], done=done)
