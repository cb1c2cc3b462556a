"""What each route answers, field by field, where clients rely on it."""

from __future__ import annotations

import base64
import json
import struct

import pytest

DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


def _lines(answer) -> list[dict]:
    return [json.loads(line) for line in answer.text.splitlines()]


def test_generate_streamed_ends_with_every_count_and_duration(gateway, text_of):
    answer = gateway.http.post("/api/generate", json={"model": "chat", "prompt": "tokens=4", "system": "x"})
    assert answer.headers["content-type"] == "application/x-ndjson"
    *pieces, last = _lines(answer)
    assert "".join(piece["response"] for piece in pieces) == text_of("tokens=4", 4)
    assert (last["done"], last["done_reason"], last["response"]) == (True, "stop", "")
    assert (last["prompt_eval_count"], last["eval_count"]) == (7, 4)
    assert all(last[name] > 0 for name in DURATIONS)


def test_generate_raw_and_limited_ends_for_its_length(gateway, text_of):
    body = {"model": "chat:latest", "prompt": "raw", "raw": True, "stream": False}
    answer = gateway.http.post("/api/generate", json=body | {"options": {"num_predict": 3}}).json()
    assert (answer["response"], answer["done_reason"]) == (text_of("raw", 3), "length")


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/api/generate", {}, "load"),
        ("/api/generate", {"prompt": "", "keep_alive": 0}, "unload"),
        ("/api/chat", {"messages": []}, "load"),
        ("/api/chat", {"messages": [], "keep_alive": "0s"}, "unload"),
    ],
)
def test_empty_prompt_loads_or_unloads(gateway, path, body, reason):
    answer = gateway.http.post(path, json={"model": "chat", **body}).json()
    assert (answer["done"], answer["done_reason"]) == (True, reason)


def test_json_is_read_whatever_the_content_type(gateway):
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    body = json.dumps(gateway.chat("tokens=1", stream=False))
    assert gateway.http.post("/api/chat", content=body, headers=headers).status_code == 200


def test_embeddings_of_many_texts_keep_their_order(gateway):
    texts = ["x" * n for n in range(1, 80)]
    answer = gateway.http.post("/api/embed", json={"model": "vectors", "input": texts}).json()
    assert [row[0] for row in answer["embeddings"]] == [float(len(text)) for text in texts]
    assert answer["prompt_eval_count"] > 0
    assert answer["total_duration"] > 0
    old = gateway.http.post("/api/embeddings", json={"model": "vectors", "prompt": "four"}).json()
    assert old == {"embedding": [4.0, 1.0, 0.5]}


def test_openai_embeddings_come_as_floats_or_base64(gateway):
    body = {"model": "vectors", "input": ["a", "bcd"]}
    floats = gateway.http.post("/v1/embeddings", json=body).json()["data"]
    packed = gateway.http.post("/v1/embeddings", json=body | {"encoding_format": "base64"}).json()["data"]
    assert [row["embedding"] for row in floats] == [[1.0, 1.0, 0.5], [3.0, 1.0, 0.5]]
    rows = [list(struct.unpack("<3f", base64.b64decode(row["embedding"]))) for row in packed]
    assert rows == [row["embedding"] for row in floats]


def test_openai_chat_takes_parts_of_text_and_a_limit(gateway, text_of):
    content = [{"type": "text", "text": "par"}, {"type": "text", "text": "ts"}]
    body = {"model": "chat", "messages": [{"role": "user", "content": content}], "max_completion_tokens": 2}
    answer = gateway.http.post("/v1/chat/completions", json=body).json()
    choice = answer["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (text_of("parts", 2), "length")
    assert answer["usage"] == {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    assert answer["object"] == "chat.completion"


def test_openai_completions_answer_plain_text(gateway, text_of):
    answer = gateway.http.post("/v1/completions", json={"model": "chat", "prompt": ["go"], "max_tokens": 2})
    assert answer.json()["choices"][0]["text"] == text_of("go", 2)


def test_models_are_listed_alike_in_both_dialects(gateway):
    tags = {model["name"] for model in gateway.http.get("/api/tags").json()["models"]}
    ids = {model["id"] for model in gateway.http.get("/v1/models").json()["data"]}
    assert tags == ids == {"chat:latest", "vectors:latest"}
    assert gateway.http.get("/v1/models/chat").json()["id"] == "chat:latest"
    shown = gateway.http.post("/api/show", json={"model": "vectors"}).json()
    assert shown["capabilities"] == ["embedding"]
    assert gateway.http.get("/api/version").json()["version"]


def test_ps_names_what_is_loaded_and_until_when(gateway):
    gateway.http.post("/api/generate", json={"model": "chat", "keep_alive": "5m"})
    gateway.until(lambda: gateway.http.get("/api/ps").json()["models"], "a model is loaded")
    (model,) = gateway.http.get("/api/ps").json()["models"]
    assert model["name"] == "chat:latest"
    assert model["expires_at"]


def test_delete_of_a_folder_that_is_not_ours_is_refused(gateway):
    answer = gateway.http.request("DELETE", "/api/delete", json={"model": "chat"})
    assert answer.status_code == 400
    assert "chat" in answer.json()["error"]


def test_pull_of_what_is_not_configured_names_what_is(gateway):
    answer = gateway.http.post("/api/pull", json={"model": "nix"})
    assert answer.status_code == 404
    assert "smollm2:135m" in answer.json()["error"]


def test_pull_that_fails_ends_in_the_stores_own_sentence(make_gateway):
    missing = {"VESTAL_MODELS__GONE__SOURCE": "path:./not-there"}
    gateway = make_gateway(**missing).start().until_ok()
    *_, last = _lines(gateway.http.post("/api/pull", json={"model": "gone"}, timeout=30))
    assert "not-there" in last["error"]
    whole = gateway.http.post("/api/pull", json={"model": "gone", "stream": False}, timeout=30)
    assert whole.status_code == 500


def test_metrics_count_what_was_served(gateway):
    text = gateway.http.get("/metrics").text
    assert "vestal_engine_up 1" in text
    assert 'vestal_requests_total{dialect="ollama",outcome="done"}' in text
