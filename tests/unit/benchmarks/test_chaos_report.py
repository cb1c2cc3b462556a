"""How chaos judges an answer, and what it counts."""

from __future__ import annotations

from math import isclose

import pytest

from benchmarks.chaos.answers import Answer
from benchmarks.chaos.asks import make_asks
from benchmarks.chaos.killer import Death
from benchmarks.chaos.reading import read
from benchmarks.chaos.report import pauses, report, table
from benchmarks.chaos.verdict import TextVerdict, judge

CALL = {"function": {"name": "weather", "arguments": {"days": 1}}}
WANTED = "The keeper lit the lamp at dusk and wrote the hour into the book beside the door."


@pytest.mark.parametrize(
    ("got", "verdict"),
    [
        (WANTED, TextVerdict.EQUAL),
        (WANTED[:30], TextVerdict.LOST),
        (WANTED[:20] + WANTED[32:], TextVerdict.LOST),
        (WANTED[:40] + WANTED[25:], TextVerdict.DOUBLED),
        (WANTED + WANTED[-12:], TextVerdict.DOUBLED),
        (WANTED[:20] + "something quite different follows here", TextVerdict.DIFFERENT),
    ],
)
def test_judge_of_cut_repeated_or_changed_text_names_the_fault(got, verdict):
    assert judge(got, True, WANTED) is verdict


def test_judge_of_an_answer_without_an_end_is_lost():
    assert judge(WANTED, False, WANTED) is TextVerdict.LOST


@pytest.mark.parametrize(
    ("path", "messages", "text"),
    [
        (
            "/api/chat",
            [{"message": {"content": "a", "tool_calls": [CALL]}, "done": False}],
            'aweather({"days": 1})',
        ),
        ("/api/generate", [{"response": "b", "done": True, "done_reason": "stop", "eval_count": 1}], "b"),
        ("/api/embed", [{"embeddings": [[1.0, 2.0]]}], "[[1.0, 2.0]]"),
        ("/v1/embeddings", [{"data": [{"embedding": [1.0, 2.0]}]}], "[[1.0, 2.0]]"),
        ("/v1/completions", [{"id": "x", "choices": [{"text": "c", "finish_reason": "stop"}]}], "c"),
        (
            "/v1/messages",
            [
                {"type": "message_start", "message": {"id": "x"}},
                {"type": "content_block_delta", "delta": {"text": "d"}},
                {
                    "type": "message_delta",
                    "delta": {"stop_reason": "end_turn"},
                    "usage": {"output_tokens": 1},
                },
            ],
            "d",
        ),
    ],
)
def test_read_adds_text_calls_and_vectors_of_every_dialect(path, messages, text):
    answer = Answer()
    for said in messages:
        read(path, answer, said, 1.0)
    assert answer.text == text and not answer.fault
    read(path, answer, {"error": "gone"}, 2.0)
    assert "gone" in answer.fault


def test_chaos_requests_of_one_seed_are_equal_and_cover_every_route():
    asks = make_asks(40, seed=7)
    assert asks == make_asks(40, seed=7) and asks != make_asks(40, seed=8)
    assert len({ask.path for ask in asks}) == 7
    assert {ask.streams for ask in asks} == {True, False}


def test_pause_of_a_stream_is_its_longest_gap_until_the_next_engine_serves():
    death = Death("TERM", 1, at=10.0, wall=0.0, replaced_at=13.0)
    assert [round(p, 3) for p in pauses([9.0, 10.1, 13.5, 20.0], death)] == [3.4]
    assert list(pauses([11.0, 12.0], death)) == []  # it had not begun
    assert list(pauses([8.0, 9.0], death)) == []  # it was at its end


def test_report_with_a_lost_request_fails_and_counts_it():
    asks = make_asks(2, seed=1)
    whole = Answer(text=WANTED, finished=True, pieces_at=[1.0, 4.0])
    wanted = {ask.number: whole for ask in asks}
    got = [(asks[0], whole), (asks[1], Answer(text="The", fault="503"))]
    outcome = report(wanted, got, [Death("KILL", 1, 2.0, 0.0, 3.5)], unreplaced=0)
    assert (outcome.sent, outcome.finished, outcome.verdicts[TextVerdict.LOST]) == (2, 1, 1)
    assert outcome.fails(least_equal=0.0) == ["1 lost"]
    assert isclose(outcome.pauses_s["KILL"][0], 3.0)
    assert "1 of 1" in table(outcome)
