"""The time limits after which a host counts as hung, and the checks of a streamed answer. Pure."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import BackendFailed
from orchestrator.llm import chat_stream
from orchestrator.llm.chat_stream import ChatStream
from orchestrator.llm.liveness import CallSilence, SilenceLimits

LIMITS = SilenceLimits(first_s=300, next_s=180, check_s=10, misses=3)


def test_call_may_be_silent_for_longer_before_its_first_token_than_after_it():
    silence = CallSilence(LIMITS, since=100.0)
    assert not silence.verdict(399.0)
    assert "before the first token" in silence.verdict(400.0)
    begun = silence.received(1000.0)
    assert not begun.verdict(1179.0)
    assert "in the middle of its answer" in begun.verdict(1180.0)


def test_silent_call_with_three_failed_checks_in_a_row_counts_as_hung():
    silence = CallSilence(LIMITS, since=0.0).checked(False).checked(False)
    assert not silence.verdict(30.0)
    assert not silence.checked(True).checked(False).checked(False).verdict(60.0)
    assert "stopped answering at all" in silence.checked(False).verdict(45.0)
    assert not silence.received(31.0).checked(False).verdict(45.0)


def test_silence_of_a_call_counts_as_short_only_within_the_check_interval():
    assert CallSilence(LIMITS, since=0.0).is_short(9.0)
    assert not CallSilence(LIMITS, since=0.0).is_short(10.0)


def lines(*parts: dict) -> bytes:
    return b"".join(json.dumps(part, ensure_ascii=False).encode() + b"\n" for part in parts)


def said(text: str, done: bool = False) -> dict:
    return {"message": {"role": "assistant", "content": text}, "done": done}


@given(st.lists(st.text(max_size=20), max_size=8), st.lists(st.integers(1, 40), max_size=60))
def test_chat_stream_split_at_any_bytes_gives_the_same_text(words: list[str], cuts: list[int]):
    raw, stream = lines(*map(said, words), said("", done=True)), ChatStream("mlx")
    for size in cuts:
        stream.take(raw[:size])
        raw = raw[size:]
    stream.take(raw)
    assert stream.end() == "".join(words)


def test_chat_stream_of_a_single_json_object_is_accepted():
    stream = ChatStream("mlx")
    stream.take(lines(said("whole", done=True)).rstrip())
    assert stream.end() == "whole"


def test_chat_stream_ending_without_done_raises_backend_failed():
    stream = ChatStream("mlx")
    stream.take(lines(said("half")))
    with pytest.raises(BackendFailed, match="mlx broke off its answer after 1 line"):
        stream.end()


@pytest.mark.parametrize("error", ["it died", {"code": "engine_crashed", "message": "it died"}])
def test_chat_stream_with_an_error_line_raises_that_error(error: object):
    with pytest.raises(BackendFailed, match="mlx failed in the middle of its answer: it died"):
        ChatStream("mlx").take(lines(said("half"), {"error": error}))


@pytest.mark.parametrize(
    ("content", "answer", "thought"),
    [
        ("<think>Let me see.</think>\n\nParis.", "\n\nParis.", True),
        ("<think>Let me see whether", "", True),
        ("A <think> tag.", "A <think> tag.", False),
    ],
)
def test_chat_stream_with_thinking_in_its_text_returns_the_answer_alone(
    content: str, answer: str, thought: bool
):
    stream = ChatStream("ollama")
    stream.take(lines(said(content, done=True)))
    assert (stream.end(), stream.thought) == (answer, thought)


@pytest.mark.parametrize("raw", [b"<html>\n", b"[1]\n", b"\xff\xfe\n"])
def test_chat_stream_that_is_not_json_raises_backend_failed(raw: bytes):
    with pytest.raises(BackendFailed, match="not a JSON object"):
        ChatStream("mlx").take(raw)


def test_chat_stream_over_the_size_limit_raises_backend_failed():
    stream = ChatStream("mlx")
    stream.take(b" " * chat_stream.MAX_BYTES)
    with pytest.raises(BackendFailed, match="more than"):
        stream.take(b" ")


def test_chat_stream_of_blank_lines_does_not_count_as_progress():
    assert not ChatStream("mlx").take(b"\n \n")
    assert ChatStream("mlx").take(b'{"done"')
