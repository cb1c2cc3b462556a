"""Bodies that rank documents, and the shapes of the answers."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_server.gateway.dialects.bodies import validated
from mlx_server.gateway.dialects.rerank.render import Ranking, ranked, scores_of_texts
from mlx_server.gateway.dialects.rerank.schema import MAX_DOCUMENTS, RankingBody
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.requests.model_requests import RerankRequest

ASKED = {"model": "m", "query": "q", "documents": ["a", "b"]}


def request(body: dict[str, Any]) -> RerankRequest:
    return validated(body, RankingBody).to_request("m:latest")


def test_rerank_body_with_documents_as_texts_and_objects_gives_the_text_of_each():
    asked = {**ASKED, "documents": ["a", {"text": "b", "title": "t"}, ""], "top_n": 99.0, "user": "ignored"}
    assert request(asked) == RerankRequest("m:latest", "q", ("a", "b", ""))


def test_rerank_body_in_hugging_face_tei_format_is_read_with_its_truncate_and_raw_scores_options():
    body = {
        "query": "q",
        "texts": ["a"],
        "truncate": False,
        "raw_scores": True,
        "truncation_direction": "Right",
    }
    assert request(body) == RerankRequest("m:latest", "q", ("a",), truncate=False, raw_scores=True)


def test_rerank_body_passes_on_the_instruction_and_the_token_limit_per_document():
    body = {**ASKED, "instruction": "find code", "max_tokens_per_doc": 7, "max_chunks_per_doc": 1}
    assert request(body) == RerankRequest(
        "m:latest", "q", ("a", "b"), instruction="find code", max_document_tokens=7
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"documents": []}, "documents: give at least one document"),
        ({"documents": None}, "documents: is missing"),
        ({"documents": None, "texts": []}, "texts: give at least one document"),
        ({"texts": ["a"]}, "texts: give either documents or texts, not both"),
        ({"documents": "a"}, 'documents: should be a list (given: "a")'),
        ({"documents": ["a", 5]}, "documents.1: should be a string or an object (given: 5)"),
        ({"documents": [{"title": "no text"}]}, "documents.0.text: is missing"),
        ({"documents": [{"text": None}]}, "documents.0.text: should be a string"),
        (
            {"documents": ["a"] * (MAX_DOCUMENTS + 1)},
            "documents: give at most 10000 documents (given: 10001)",
        ),
        ({"top_n": 0}, "top_n: should be greater than or equal to 1 (given: 0)"),
        ({"top_n": -1}, "top_n: should be greater than or equal to 1 (given: -1)"),
        ({"top_n": 1.5}, "top_n: should be a whole number (given: 1.5)"),
        ({"query": ""}, "query: give a text"),
        ({"query": " \n"}, "query: give a text"),
        ({"query": ["a"]}, 'query: should be a string (given: ["a"])'),
        ({"max_tokens_per_doc": 0}, "max_tokens_per_doc: should be greater than or equal to 1 (given: 0)"),
        ({"rank_fields": ["title"]}, "rank_fields: only the field text is ranked; put what counts into it"),
        (
            {"truncation_direction": "Left"},
            "truncation_direction: long documents lose their end; leave it out",
        ),
    ],
)
def test_invalid_rerank_body_is_a_bad_request_with_one_sentence(changes, sentence):
    with pytest.raises(BadRequest) as caught:
        request({**ASKED, **changes})
    assert str(caught.value) == sentence


def test_rerank_result_lists_the_best_documents_first_and_ties_in_request_order():
    ranking = Ranking("id-1", (0.5, 0.9, 0.5, -2.0), 12)
    assert ranking.best(None) == [(1, 0.9), (0, 0.5), (2, 0.5), (3, -2.0)]
    assert ranking.best(2) == ranking.best(99)[:2]


def test_rerank_answer_has_the_fields_that_clients_of_jina_and_cohere_read():
    texts = ["a", "b"]
    answer = ranked("m", Ranking("id-1", (0.1, 0.9), 12), 1, texts, returns_documents=True)
    assert answer == {
        "id": "id-1",
        "model": "m",
        "object": "list",
        "results": [{"index": 1, "relevance_score": 0.9, "document": {"text": "b"}}],
        "usage": {"prompt_tokens": 12, "total_tokens": 12},
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": 12},
        },
    }
    without = ranked("m", Ranking("id-1", (0.1,), 12), None, texts[:1], returns_documents=False)
    assert without["results"] == [{"index": 0, "relevance_score": 0.1}]


def test_rerank_answer_to_a_body_with_texts_is_the_list_that_clients_of_tei_read():
    ranking = Ranking("id-1", (0.1, 0.9), 12)
    assert scores_of_texts(ranking, None, ["a", "b"], returns_text=True) == [
        {"index": 1, "score": 0.9, "text": "b"},
        {"index": 0, "score": 0.1, "text": "a"},
    ]
    assert scores_of_texts(ranking, 1, ["a", "b"], returns_text=False) == [{"index": 1, "score": 0.9}]
