"""The answer of each route, in the fields that clients rely on."""

from __future__ import annotations

import base64
import json
import struct

import pytest

from tests import dashboards

DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


def _lines(answer) -> list[dict]:
    return [json.loads(line) for line in answer.text.splitlines()]


def test_ollama_generate_streamed_ends_with_every_count_and_duration(gateway, text_of):
    answer = gateway.http.post("/api/generate", json={"model": "chat", "prompt": "tokens=4", "system": "x"})
    assert answer.headers["content-type"] == "application/x-ndjson"
    *pieces, last = _lines(answer)
    assert "".join(piece["response"] for piece in pieces) == text_of("tokens=4", 4)
    assert (last["done"], last["done_reason"], last["response"]) == (True, "stop", "")
    assert (last["prompt_eval_count"], last["eval_count"]) == (7, 4)
    assert all(last[name] > 0 for name in DURATIONS)


def test_ollama_generate_raw_with_a_limit_ends_with_reason_length(gateway, text_of):
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
def test_ollama_request_without_a_prompt_loads_the_model_or_with_keep_alive_0_unloads_it(
    gateway, path, body, reason
):
    answer = gateway.http.post(path, json={"model": "chat", **body}).json()
    assert (answer["done"], answer["done_reason"]) == (True, reason)


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/api/generate", {"keep_alive": 0}, "unload"),  # what `ollama stop` sends
        ("/api/generate", {"prompt": "", "keep_alive": "5m"}, "load"),
        ("/api/chat", {"keep_alive": 0}, "unload"),
    ],
)
def test_ollama_request_without_a_prompt_also_loads_or_unloads_an_embedding_model(
    gateway, path, body, reason
):
    is_loaded = lambda: "vectors:latest" in gateway.health()["models"]["loaded"]  # noqa: E731
    gateway.http.post("/api/embed", json={"model": "vectors"})
    gateway.until(is_loaded, "it is loaded")
    answer = gateway.http.post(path, json={"model": "vectors", **body})
    assert (answer.status_code, answer.json()["done"], answer.json()["done_reason"]) == (200, True, reason)
    gateway.until(lambda: is_loaded() is (reason == "load"), "it is as the reason says")


def test_ollama_embed_without_input_loads_the_model_or_with_keep_alive_0_unloads_it(gateway):
    for keep_alive in ("5m", 0):
        for path, vectors in (("/api/embed", "embeddings"), ("/api/embeddings", "embedding")):
            answer = gateway.http.post(path, json={"model": "vectors", "keep_alive": keep_alive})
            assert answer.json()[vectors] == []
        loaded = lambda: "vectors:latest" in gateway.health()["models"]["loaded"]  # noqa: E731
        gateway.until(lambda: loaded() is (keep_alive != 0), f"as {keep_alive} says")  # noqa: B023


def test_body_with_the_content_type_of_a_form_is_read_as_json(gateway):
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    body = json.dumps(gateway.chat("tokens=1", stream=False))
    assert gateway.http.post("/api/chat", content=body, headers=headers).status_code == 200


def test_ollama_embeddings_of_many_texts_keep_their_order(gateway):
    texts = ["x" * n for n in range(1, 80)]
    answer = gateway.http.post("/api/embed", json={"model": "vectors", "input": texts}).json()
    assert [row[0] for row in answer["embeddings"]] == [float(len(text)) for text in texts]
    assert answer["prompt_eval_count"] > 0
    assert answer["total_duration"] > 0
    old = gateway.http.post("/api/embeddings", json={"model": "vectors", "prompt": "four"}).json()
    assert old == {"embedding": [4.0, 1.0, 0.5]}


def test_openai_embeddings_as_floats_or_base64_are_equal(gateway):
    body = {"model": "vectors", "input": ["a", "bcd"]}
    floats = gateway.http.post("/v1/embeddings", json=body).json()["data"]
    packed = gateway.http.post("/v1/embeddings", json=body | {"encoding_format": "base64"}).json()["data"]
    assert [row["embedding"] for row in floats] == [[1.0, 1.0, 0.5], [3.0, 1.0, 0.5]]
    rows = [list(struct.unpack("<3f", base64.b64decode(row["embedding"]))) for row in packed]
    assert rows == [row["embedding"] for row in floats]


def test_openai_chat_joins_content_parts_and_ends_at_max_completion_tokens(gateway, text_of):
    content = [{"type": "text", "text": "par"}, {"type": "text", "text": "ts"}]
    body = {"model": "chat", "messages": [{"role": "user", "content": content}], "max_completion_tokens": 2}
    answer = gateway.http.post("/v1/chat/completions", json=body).json()
    choice = answer["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (text_of("parts", 2), "length")
    assert answer["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert answer["object"] == "chat.completion"


def test_openai_completion_returns_plain_text(gateway, text_of):
    answer = gateway.http.post("/v1/completions", json={"model": "chat", "prompt": ["go"], "max_tokens": 2})
    assert answer.json()["choices"][0]["text"] == text_of("go", 2)


def test_openai_completion_accepts_token_ids(gateway, text_of):
    one = {"model": "chat", "prompt": [5, 6], "max_tokens": 2}
    (choice,) = gateway.http.post("/v1/completions", json=one).json()["choices"]
    assert choice["text"] == text_of("5 6", 2)
    choices = gateway.http.post("/v1/completions", json=one | {"prompt": [[5, 6], [7]]}).json()["choices"]
    assert [choice["text"] for choice in choices] == [text_of("5 6", 2), text_of("7", 2)]


@pytest.mark.parametrize("n", [1, 2])
def test_openai_completion_with_echo_begins_each_answer_with_its_prompt(gateway, text_of, n):
    body = {"model": "chat", "prompt": ["go", "stay"], "max_tokens": 2, "echo": True, "n": n}
    wanted = [prompt + text_of(prompt, 2) for prompt in ("go", "stay") for _ in range(n)]
    whole = gateway.http.post("/v1/completions", json=body).json()
    assert [choice["text"] for choice in whole["choices"]] == wanted
    events = gateway.http.post("/v1/completions", json=body | {"stream": True}).text.split("\n\n")
    texts = [""] * len(wanted)
    for event in events:
        if event.startswith("data: {"):
            (choice,) = json.loads(event[6:])["choices"]
            texts[choice["index"]] += choice["text"]
    assert texts == wanted


def test_anthropic_count_tokens_equals_the_input_tokens_in_the_first_stream_event(gateway):
    body = {"model": "chat", "messages": [{"role": "user", "content": "tokens=2"}]}
    counted = gateway.http.post("/v1/messages/count_tokens", json=body).json()
    assert counted == {"input_tokens": 7}
    events = gateway.http.post("/v1/messages", json=body | {"max_tokens": 9, "stream": True}).text
    start = json.loads(events.split("\n")[1].removeprefix("data: "))
    cached = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    assert start["message"]["usage"] == {"input_tokens": 7, "output_tokens": 0, **cached}


def test_ollama_and_openai_list_the_same_models(gateway):
    tags = {model["name"] for model in gateway.http.get("/api/tags").json()["models"]}
    ids = {model["id"] for model in gateway.http.get("/v1/models").json()["data"]}
    assert tags == ids == {"chat:latest", "vectors:latest"}
    assert gateway.http.get("/v1/models/chat").json()["id"] == "chat:latest"
    shown = gateway.http.post("/api/show", json={"model": "vectors"}).json()
    assert shown["capabilities"] == ["embedding"]
    assert gateway.http.get("/api/version").json()["version"]


def test_ollama_ps_lists_a_loaded_model_with_its_expiry(gateway):
    gateway.http.post("/api/generate", json={"model": "chat", "keep_alive": "5m"})
    gateway.until(lambda: gateway.http.get("/api/ps").json()["models"], "a model is loaded")
    (model,) = gateway.http.get("/api/ps").json()["models"]
    assert model["name"] == "chat:latest"
    assert model["expires_at"]


def test_ollama_delete_of_a_model_that_vestal_did_not_download_is_refused(gateway):
    answer = gateway.http.request("DELETE", "/api/delete", json={"model": "chat"})
    assert answer.status_code == 400
    assert "chat" in answer.json()["error"]


def test_ollama_pull_of_an_unknown_model_names_the_configured_ones(gateway):
    answer = gateway.http.post("/api/pull", json={"model": "nix"})
    assert answer.status_code == 404
    assert "smollm2:135m" in answer.json()["error"]


def test_ollama_pull_that_fails_ends_with_the_reason(make_gateway):
    missing = {"VESTAL_MODELS__GONE__SOURCE": "path:./not-there"}
    gateway = make_gateway(**missing).start().until_ok()
    *_, last = _lines(gateway.http.post("/api/pull", json={"model": "gone"}))
    assert "not-there" in last["error"]
    whole = gateway.http.post("/api/pull", json={"model": "gone", "stream": False})
    assert whole.status_code == 404


def test_metrics_count_finished_requests_and_have_every_series_of_the_dashboard(gateway):
    gateway.http.post("/api/chat", json=gateway.chat("hello", stream=False, options={"num_predict": 2}))
    text = gateway.http.get("/metrics").text
    assert dashboards.missing_of("gateway", text) == set()
    assert "vestal_engine_up 1" in text
    assert 'vestal_requests_total{dialect="ollama",outcome="done"}' in text
