"""How the chaos benchmark draws its requests, reads their answers, and judges them."""

from __future__ import annotations

import pytest

from benchmarks.chaos.verdict import TextVerdict, judge
from benchmarks.client.once import Answer
from benchmarks.client.reading import read
from benchmarks.client.requests import comes_back_by_id, make_requests

CALL = {"function": {"name": "weather", "arguments": {"days": 1}}}
VECTORS = "vectors 6ede578a92968994e2a6a1424fbe7b82156ab2b537ed43a571eff3f23b2d4930"
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
def test_chaos_judge_distinguishes_lost_repeated_and_different_text_in_an_answer(got, verdict):
    assert judge(got, True, WANTED) is verdict


def test_chaos_judge_counts_an_answer_that_never_ended_as_lost_text_even_if_all_its_text_arrived():
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
        ("/api/embed", [{"embeddings": [[1.0, 2.0]]}], VECTORS),
        ("/v1/embeddings", [{"data": [{"embedding": [1.0, 2.0]}]}], VECTORS),
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
        (
            "/v1/responses",
            [
                {"type": "response.created", "response": {"id": "x", "error": None, "status": "in_progress"}},
                {"type": "response.output_text.delta", "delta": "e"},
                {
                    "type": "response.incomplete",
                    "response": {"id": "x", "status": "incomplete", "usage": {"output_tokens": 1}},
                },
            ],
            "e",
        ),
        (
            "/v1/responses",
            [
                {
                    "id": "x",
                    "error": None,
                    "status": "completed",
                    "output": [{"type": "message", "content": [{"type": "output_text", "text": "f"}]}],
                    "usage": {"output_tokens": 1},
                }
            ],
            "f",
        ),
    ],
)
def test_chaos_client_reads_text_tool_calls_vectors_and_errors_of_every_api(path, messages, text):
    answer = Answer()
    for said in messages:
        read(path, answer, said, 1.0)
    assert answer.text == text and not answer.fault
    read(path, answer, {"error": "gone"}, 2.0)
    assert "gone" in answer.fault


def test_chaos_requests_are_equal_for_equal_seeds_and_cover_every_route():
    asks = make_requests(40, seed=7)
    assert asks == make_requests(40, seed=7) and asks != make_requests(40, seed=8)
    assert len({ask.path for ask in asks}) == 8
    assert {ask.streams for ask in asks} == {True, False}


def test_chaos_clients_resume_each_kind_of_request_both_by_id_and_by_idempotency_key():
    kinds = [ask.path + str("tools" in ask.body) for ask in make_requests(36, seed=1)]
    found = {(kind, comes_back_by_id(number)) for number, kind in enumerate(kinds)}
    assert found == {(kind, by_id) for kind in kinds for by_id in (True, False)}
