"""Counts, durations, times and choices that clients compute with: the same whole and streamed."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

DURATIONS = ("load_duration", "prompt_eval_duration", "eval_duration")
TEXT: dict[str, Any] = {"model": "smollm2:135m", "options": {"temperature": 0, "num_predict": 8}}
BODIES = {
    "/api/generate": TEXT | {"prompt": "Once upon a time"},
    "/api/chat": TEXT | {"messages": [{"role": "user", "content": "Tell me a story."}]},
}


def lines(answer: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.text.splitlines()]


def events(answer: Any) -> list[dict[str, Any]]:
    found = [event.removeprefix("data: ") for event in answer.text.split("\n\n") if event]
    assert found[-1] == "[DONE]"
    return [json.loads(event) for event in found[:-1]]


def is_now(created_at: str) -> bool:
    created = datetime.fromisoformat(created_at)
    assert created.tzinfo is not None and "T" in created_at
    return abs(datetime.now().astimezone() - created) < timedelta(minutes=1)


@pytest.mark.model
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", BODIES)
def test_ollama_answer_has_counts_and_durations_that_add_up(small_gateway, path, stream):
    answer = small_gateway.http.post(path, json=BODIES[path] | {"stream": stream})
    *pieces, last = lines(answer)
    assert all(is_now(line["created_at"]) and line["model"] == TEXT["model"] for line in (*pieces, last))
    assert all(not piece["done"] and "eval_count" not in piece for piece in pieces)
    assert (last["done"], last["done_reason"], last["eval_count"]) == (True, "length", 8)
    assert 1 < last["prompt_eval_count"] < 80
    assert all(isinstance(last[name], int) and last[name] > 0 for name in (*DURATIONS, "total_duration"))
    assert sum(last[name] for name in DURATIONS) <= last["total_duration"] < 30e9


@pytest.mark.model
def test_ollama_embed_answer_has_a_token_count_and_durations(small_gateway):
    body = {"model": "all-minilm", "input": ["a cat", "a kitten"]}
    answer = small_gateway.http.post("/api/embed", json=body).json()
    assert 4 < answer["prompt_eval_count"] < 20
    assert 0 < answer["load_duration"] <= answer["total_duration"] < 30e9


@pytest.mark.model
@pytest.mark.parametrize("stops", [None, "two words", "a letter"])
def test_openai_logprobs_match_the_text_with_and_without_streaming(small_gateway, stops):
    body: dict[str, Any] = {"model": "smollm2:135m", "messages": BODIES["/api/chat"]["messages"]}
    body |= {"temperature": 0, "max_tokens": 24, "logprobs": True, "top_logprobs": 1}
    uncut = small_gateway.http.post("/v1/chat/completions", json=body).json()["choices"][0]
    words = uncut["message"]["content"].split(" ")
    stop = {None: None, "two words": [f" {words[9]}", f" {words[7]}"], "a letter": words[3][-1]}[stops]
    body |= {"stop": stop}
    whole = small_gateway.http.post("/v1/chat/completions", json=body).json()["choices"][0]
    streamed = events(small_gateway.http.post("/v1/chat/completions", json=body | {"stream": True}))
    choices = [event["choices"][0] for event in streamed]
    text = "".join(choice["delta"].get("content", "") for choice in choices)
    rows = [row for choice in choices if choice["logprobs"] for row in choice["logprobs"]["content"]]
    assert text == whole["message"]["content"]
    assert choices[-1]["finish_reason"] == whole["finish_reason"] == ("stop" if stop else "length")
    assert rows == (whole["logprobs"] or {"content": []})["content"]
    assert "".join(row["token"] for row in rows).startswith(text)
    assert not any(text.count(each) for each in ([stop] if isinstance(stop, str) else stop or []))


@pytest.mark.parametrize(
    "keep_alive", [0, 0.0, -1, -1.5, "0", "-1", "0s", "5m", "1h30m", "1.5h", "-1m", "300ms", 30, 1.5, None]
)
def test_keep_alive_in_each_format_of_ollama_is_accepted(gateway, keep_alive):
    body = {"model": "chat", "prompt": "tokens=1", "stream": False, "keep_alive": keep_alive}
    assert gateway.http.post("/api/generate", json=body).status_code == 200


@pytest.mark.parametrize("keep_alive", ["", "soon", "5 m", "5x", "m", "nan", "1m-1s", True, [], {}, ["5m"]])
def test_keep_alive_that_is_not_a_duration_is_refused(gateway, keep_alive):
    for path in ("/api/generate", "/api/chat", "/api/embed", "/api/show"):
        answer = gateway.http.post(path, json={"model": "chat", "keep_alive": keep_alive})
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("keep_alive: ")


@pytest.mark.parametrize(("keep_alive", "expires_in"), [("1h30m", timedelta(hours=1.5)), (-1, None)])
def test_ollama_ps_shows_the_time_until_which_a_model_stays_loaded(gateway, keep_alive, expires_in):
    def expiries() -> list[timedelta]:
        """Return one expiry, or none before the engine has reported the model."""
        models = gateway.http.get("/api/ps").json()["models"]
        shown = [model["expires_at"] for model in models if model["name"] == "chat:latest"]
        return [datetime.fromisoformat(each) - datetime.now().astimezone() for each in shown]

    gateway.http.post("/api/generate", json={"model": "chat", "keep_alive": keep_alive})
    least = timedelta(days=365) if expires_in is None else expires_in - timedelta(minutes=1)
    most = expires_in or timedelta.max
    gateway.until(lambda: any(least < expiry <= most for expiry in expiries()), "the expiry is shown")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_openai_stream_of_three_answers_finishes_each_and_counts_the_prompt_tokens_once(gateway, path):
    prompt = (
        {"messages": [{"role": "user", "content": "tokens=3"}]} if "chat" in path else {"prompt": "tokens=3"}
    )
    body = {"model": "chat", "n": 3, "stream": True, "stream_options": {"include_usage": True}, **prompt}
    *chunks, last = events(gateway.http.post(path, json=body))
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 9,
        "total_tokens": 16,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert len({chunk["id"] for chunk in (*chunks, last)}) == 1
    assert all(chunk["usage"] is None and len(chunk["choices"]) == 1 for chunk in chunks)
    ends = [c["choices"][0]["index"] for c in chunks if c["choices"][0]["finish_reason"]]
    assert sorted(ends) == [0, 1, 2]
    if "chat" in path:
        starts = [c["choices"][0]["index"] for c in chunks if "role" in c["choices"][0]["delta"]]
        assert starts == [0, 1, 2]


def test_openai_stream_without_include_usage_has_no_usage(gateway):
    chunks = events(gateway.http.post("/v1/chat/completions", json=gateway.chat("tokens=2", stream=True)))
    assert chunks and not any("usage" in chunk for chunk in chunks)


# --- tokens, and the probabilities of a prompt's own ---


@pytest.mark.model
def test_tokenize_and_detokenize_restore_the_text_and_refuse_unknown_tokens(small_gateway):
    """These routes are as in llama-server, whose clients send no model name; here there are two models."""

    def post(path: str, **body: Any) -> Any:
        answer = small_gateway.http.post(path, json={"model": "smollm2:135m"} | body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    text = "Grass is green 😀"
    ids = post("/tokenize", content=text)["tokens"]
    assert post("/detokenize", tokens=ids) == {"content": text}
    pieces = post("/tokenize", content="Grass is green", with_pieces=True)["tokens"]
    assert "".join(token["piece"] for token in pieces) == "Grass is green"
    assert post("/tokenize", content="") == {"tokens": []}
    assert post("/detokenize", tokens=[]) == {"content": ""}
    prompt = post("/apply-template", messages=[{"role": "user", "content": "Name a color."}])["prompt"]
    assert "<|im_start|>user\nName a color.<|im_end|>" in prompt
    for body, word in (({"model": "smollm2:135m", "tokens": [10**6]}, "1000000"), ({"tokens": [1]}, "chat:")):
        refused = small_gateway.http.post("/detokenize", json=body)
        assert refused.status_code == 400 and word in refused.json()["error"]["message"]


@pytest.mark.model
@pytest.mark.parametrize("as_ids", [False, True])
def test_completion_with_echo_and_logprobs_returns_prompt_logprobs_as_lm_eval_reads_them(
    small_gateway, as_ids
):
    """lm-eval sends ids or text, and reads `token_logprobs` from the end of the context on."""
    text = "Grass is green"
    ids = small_gateway.http.post("/tokenize", json={"model": "smollm2:135m", "content": text}).json()[
        "tokens"
    ]
    body = {"model": "smollm2:135m", "prompt": ids if as_ids else text, "temperature": 0, "seed": 1234}
    body |= {"max_tokens": 1, "logprobs": 1, "echo": True}
    (choice,) = small_gateway.http.post("/v1/completions", json=body).json()["choices"]
    logprobs = choice["logprobs"]
    assert choice["text"].startswith(text) and "".join(logprobs["tokens"]) == choice["text"]
    assert len(logprobs["token_logprobs"]) == len(logprobs["top_logprobs"]) == len(ids) + 1
    assert logprobs["token_logprobs"][0] is None and logprobs["top_logprobs"][0] is None
    for value, top in zip(logprobs["token_logprobs"][1:-1], logprobs["top_logprobs"][1:-1], strict=True):
        assert value <= max(top.values()) <= 0
    only = small_gateway.http.post("/v1/completions", json=body | {"max_tokens": 0}).json()
    assert only["choices"][0]["text"] == text and only["usage"]["completion_tokens"] == 0
    assert only["choices"][0]["logprobs"]["token_logprobs"][1:] == logprobs["token_logprobs"][1:-1]


@pytest.mark.model
def test_models_are_listed_in_anthropics_format_if_the_anthropic_version_header_is_sent(small_gateway):
    version = {"anthropic-version": "2023-06-01"}
    page = small_gateway.http.get("/v1/models", headers=version, params={"limit": 1}).json()
    assert page["has_more"] and page["last_id"] == page["data"][0]["id"]
    rest = small_gateway.http.get("/v1/models", headers=version, params={"after_id": page["last_id"]}).json()
    assert not rest["has_more"]
    for name in ("smollm2:135m", "smollm2%3A135m", "library/smollm2:135m"):
        model = small_gateway.http.get(f"/v1/models/{name}", headers=version).json()
        assert (model["type"], model["id"]) == ("model", "smollm2:135m")
        assert small_gateway.http.get(f"/v1/models/{name}").json()["object"] == "model"
    wrong = small_gateway.http.get("/v1/models", headers=version, params={"limit": "x"})
    assert wrong.status_code == 400
