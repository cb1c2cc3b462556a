"""Documents are ranked over HTTP: with the fake engine, and by random weights in a real one."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.children import fake_engine
from tests.component.mlx_server.gateway.conftest import REPO, make_model
from tests.models.random_rerankers import DOCUMENTS, FAMILIES, QUERIES

RANKER = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "id2label": {"0": "L"}}
PATHS = ("/v1/rerank", "/rerank", "/v2/rerank", "/v1/reranking", "/reranking")


@pytest.fixture(scope="module")
def score() -> Callable[[str, str], float]:
    """The fake engine's function from a query and a document to the score."""
    return fake_engine.score


@pytest.fixture(scope="module")
def gateway(make_gateway: Callable[..., Any]) -> Any:
    made = make_gateway()
    make_model(made.home / "found" / "ranker", **RANKER)
    return made.start().until_ok()


def ranked(gateway: Any, path: str = "/v1/rerank", **body: Any) -> Any:
    answer = gateway.http.post(path, json={"model": "ranker", "query": "q", "documents": ["a", "b"], **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("path", PATHS)
def test_rerank_on_every_path_returns_the_best_documents_with_their_scores(gateway, score, path):
    documents = [f"text {number}" for number in range(5)]
    answer = ranked(gateway, path, documents=documents, top_n=3)
    best = sorted(range(5), key=lambda index: -score("q", documents[index]))[:3]
    assert [result["index"] for result in answer["results"]] == best
    assert [result["relevance_score"] for result in answer["results"]] == [
        score("q", documents[index]) for index in best
    ]
    has_texts = [result.get("document") for result in answer["results"]] == [
        {"text": documents[index]} for index in best
    ]
    assert has_texts is (path == "/v1/rerank")
    assert answer["usage"] == {"prompt_tokens": 20, "total_tokens": 20}


def test_tei_rerank_without_a_model_name_returns_a_sorted_list_scored_by_the_only_reranker(gateway, score):
    answer = gateway.http.post("/rerank", json={"query": "q", "texts": ["a", "b"]})
    expected = [{"index": n, "score": score("q", text)} for n, text in enumerate(("a", "b"))]
    assert answer.json() == sorted(expected, key=lambda each: -each["score"])
    assert answer.headers["x-request-id"]


def test_rerank_accepts_ten_thousand_documents_and_refuses_one_more(gateway, score):
    documents = [f"{number}" * (number % 7 + 1) + " " for number in range(10_000)]
    answer = ranked(gateway, documents=documents, return_documents=False)
    assert sorted(result["index"] for result in answer["results"]) == list(range(10_000))
    found = {result["index"]: result["relevance_score"] for result in answer["results"]}
    assert all(found[n] == score("q", documents[n]) for n in range(0, 10_000, 997))
    refused = gateway.http.post("/v1/rerank", json={"query": "q", "documents": [*documents, "x"]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("path", "body", "code", "sentence"),
    [
        ("/v1/rerank", {"model": "chat"}, "not_a_rerank_model",
         "Model 'chat' makes text, not rankings of documents."),
        ("/rerank", {"model": "vectors"}, "not_a_rerank_model",
         "Model 'vectors' makes embeddings, not rankings of documents."),
        ("/v1/embeddings", {"model": "ranker", "input": "a"}, "not_an_embedding_model",
         "Model 'ranker' makes rankings of documents, not embeddings."),
        ("/v1/chat/completions", {"model": "ranker", "messages": [{"role": "user", "content": "a"}]},
         "not_a_chat_model", "Model 'ranker' makes rankings of documents, not text."),
    ],
)  # fmt: skip
def test_request_to_a_model_of_the_wrong_kind_gets_a_400_that_states_what_the_model_produces(
    gateway, path, body, code, sentence
):
    answer = gateway.http.post(path, json={"query": "q", "documents": ["a"], **body})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert answer.json()["error"]["message"] == sentence


def test_rerank_treats_a_lone_surrogate_in_a_document_as_the_replacement_character(gateway, score):
    body = '{"model": "ranker", "query": "q", "documents": ["\\ud83d"]}'
    answer = gateway.http.post("/v1/rerank", content=body)
    result = {"index": 0, "relevance_score": score("q", "\ufffd"), "document": {"text": "\ufffd"}}
    assert answer.json()["results"] == [result]


def test_rerank_whose_engine_is_killed_returns_the_same_scores_as_without_a_kill(gateway, score):
    documents = [str(number) for number in range(100)]
    query = "die_at=1 once=1"
    pid = gateway.engine_pid()
    answer = ranked(gateway, query=query, documents=documents)
    assert gateway.engine_pid() != pid
    found = {result["index"]: result["relevance_score"] for result in answer["results"]}
    assert found == {n: score(query, text) for n, text in enumerate(documents)}


def test_rerank_in_progress_is_listed_and_is_cancelled_when_its_client_leaves(gateway):
    body = json.dumps({"model": "ranker", "query": "step_ms=50", "documents": ["text"] * 2000})
    head = f"POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), 60) as client:
        client.sendall((head + body).encode())
        (entry,) = gateway.until(lambda: gateway.http.get("/requests").json()["requests"], "it is listed")
        assert (entry["dialect"], entry["model"], entry["tokens"]) == ("rerank", "ranker:latest", None)
    gateway.until(lambda: not gateway.http.get("/requests").json()["requests"], "it is gone")
    gateway.until((gateway.home / "cancelled").exists, "the engine has dropped it")


@pytest.mark.model
def test_rerank_by_the_real_engine_equals_recorded_scores_and_survives_an_engine_kill(make_gateway):
    recorded = json.loads((REPO / "tests/data/rerankers/scores.json").read_text())
    gateway = make_gateway(None, "-m", "mlx_server.gateway", VESTAL_MLX__PRELOAD="[]")
    for family in ("bert", "qwen3"):
        FAMILIES[family](Path(gateway.home / "found" / family))
    gateway.start().until(lambda: gateway.health()["status"] == "ok", "the real engine is ready", 90)

    def scores(family: str) -> list[float]:
        answer = ranked(gateway, model=family, query=QUERIES[0], documents=list(DOCUMENTS))
        by_index = {result["index"]: result["relevance_score"] for result in answer["results"]}
        return [by_index[index] for index in range(len(DOCUMENTS))]

    before = {family: scores(family) for family in ("bert", "qwen3")}
    for family, found in before.items():
        assert found == pytest.approx(recorded[family][0], abs=1e-3)
    many = [f"{text} {number}" for number in range(100) for text in DOCUMENTS]
    whole = ranked(gateway, model="bert", documents=many)["results"]
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(ranked(gateway, model="bert", documents=many)))
    gateway.kill_engine(signal.SIGSTOP)  # it must not be done before it is killed
    asking.start()
    gateway.until(lambda: gateway.http.get("/requests").json()["requests"], "it runs")
    gateway.kill_engine(signal.SIGCONT)
    time.sleep(0.05)
    gateway.kill_engine()
    asking.join(60)
    assert [r["index"] for r in answers[0]["results"]] == [r["index"] for r in whole]
    kinds = {
        model["name"]: model.get("capabilities") for model in gateway.http.get("/api/tags").json()["models"]
    }
    assert kinds["bert:latest"] == ["rerank"]
