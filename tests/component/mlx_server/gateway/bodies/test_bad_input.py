"""Bad requests: each is answered in JSON, in the envelope of its dialect, with a fitting status."""

from __future__ import annotations

from typing import Any

import pytest

HELLO = [{"role": "user", "content": "hello"}]
OPENAI_IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
ANTHROPIC_IMAGE = [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": ""}}]}]

CASES: list[tuple[str, Any, int, str, str]] = [
    ("/api/chat", b"{", 400, "invalid_json", "JSON"),
    ("/api/chat", b"", 400, "invalid_json", "empty"),
    ("/api/chat", b"[1]", 400, "invalid_json", "a list"),
    ("/api/chat", b"\xff\xfe", 400, "invalid_json", "UTF-8"),
    ("/api/chat", b'{"model": "chat", "options": {"temperature": NaN}}', 400, "invalid_json", "NaN"),
    ("/api/chat", b"[" * 100_000, 400, "invalid_json", "deep"),
    ("/api/chat", b'{"model": "a\\ud800"}', 404, "model_not_found", "a\ufffd"),
    ("/api/chat", {}, 400, "invalid_request", "model"),
    ("/api/chat", {"model": 3}, 400, "invalid_request", "model"),
    ("/api/chat", {"model": "chat", "messages": "hello"}, 400, "invalid_request", "messages"),
    ("/api/chat", {"model": "chat", "messages": [{"role": 1}]}, 400, "invalid_request", "role"),
    ("/api/chat", {"model": "chat", "stream": "yes"}, 400, "invalid_request", "stream"),
    (
        "/api/chat",
        {"model": "chat", "options": {"temperature": "hot"}},
        400,
        "invalid_request",
        "temperature",
    ),
    ("/api/chat", {"model": "chat", "options": {"top_k": [1]}}, 400, "invalid_request", "top_k"),
    ("/api/chat", {"model": "chat", "keep_alive": "soon"}, 400, "invalid_request", "keep_alive"),
    ("/api/chat", {"model": "nix", "messages": HELLO}, 404, "model_not_found", "chat:latest"),
    ("/api/chat", {"model": "smollm2:135m", "messages": HELLO}, 404, "model_not_found", "pull"),
    ("/api/chat", {"model": "vectors", "messages": HELLO}, 400, "not_a_chat_model", "embeddings"),
    ("/api/chat", {"model": "chat", "messages": HELLO, "format": "xml"}, 400, "invalid_request", "format"),
    (
        "/api/chat",
        {"model": "chat", "messages": [HELLO[0] | {"images": ["aa"]}]},
        400,
        "not_supported",
        "images",
    ),
    (
        "/api/generate",
        {"model": "chat", "prompt": "a", "template": "{{ messages }}"},
        400,
        "not_supported",
        "fields",
    ),
    (
        "/api/generate",
        {"model": "chat", "prompt": "a", "raw": True, "system": "b"},
        400,
        "invalid_request",
        "raw",
    ),
    ("/api/generate", {"model": "chat", "prompt": "a", "images": ["aa"]}, 400, "not_supported", "images"),
    ("/api/generate", {"model": "chat", "prompt": ["a"]}, 400, "invalid_request", "prompt"),
    ("/api/embed", {"model": "chat", "input": "a"}, 400, "not_an_embedding_model", "chat"),
    ("/api/embed", {"model": "vectors", "input": [1]}, 400, "invalid_request", "input"),
    ("/api/show", {"model": "nix"}, 404, "model_not_found", "nix"),
    ("/v1/chat/completions", {"model": "chat"}, 400, "invalid_request", "messages"),
    ("/v1/chat/completions", {"model": "nix", "messages": HELLO}, 404, "model_not_found", "nix"),
    ("/v1/chat/completions", {"model": "chat", "messages": []}, 400, "invalid_request", "messages"),
    ("/v1/chat/completions", {"model": "chat", "messages": OPENAI_IMAGE}, 400, "not_supported", "image_url"),
    ("/v1/chat/completions", {"model": "chat", "messages": HELLO, "n": 999}, 400, "invalid_request", "n"),
    (
        "/v1/chat/completions",
        {"model": "chat", "messages": HELLO, "max_tokens": 0},
        400,
        "invalid_request",
        "max",
    ),
    ("/v1/completions", {"model": "chat", "prompt": [1], "suffix": "b"}, 400, "not_supported", "suffix"),
    (
        "/v1/completions",
        {"model": "chat", "prompt": [1], "echo": True, "stream": True},
        400,
        "not_supported",
        "echo",
    ),
    (
        "/v1/completions",
        {"model": "chat", "prompt": "a", "echo": True, "logprobs": 1, "stream": True},
        400,
        "not_supported",
        "echo",
    ),
    ("/v1/completions", {"model": "chat", "prompt": []}, 400, "empty_prompt", "prompt"),
    (
        "/v1/messages",
        {"model": "chat", "max_tokens": 1, "messages": ANTHROPIC_IMAGE},
        400,
        "not_supported",
        "image",
    ),
    (
        "/v1/messages/count_tokens",
        {"model": "chat", "messages": ANTHROPIC_IMAGE},
        400,
        "not_supported",
        "image",
    ),
    ("/api/generate", {"model": "chat", "prompt": "", "images": ["aa"]}, 400, "not_supported", "images"),
    ("/v1/completions", {"model": "chat", "prompt": ["a"] * 999}, 400, "invalid_request", "999 answers"),
    ("/v1/embeddings", {"model": "vectors", "input": [[1]]}, 400, "not_supported", "token"),
    ("/v1/embeddings", {"model": "chat", "input": "a"}, 400, "not_an_embedding_model", "chat"),
]


def _post(gateway, path: str, body: Any):
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    return gateway.http.post(path, **sent)


def _error(path: str, body: dict) -> tuple[str, str]:
    """Return code and message of an error in either envelope."""
    error = body["error"] if path.startswith("/v1") else {"message": body["error"], "code": body["code"]}
    return error["code"], error["message"]


@pytest.mark.parametrize(("path", "body", "status", "code", "word"), CASES)
def test_gateway_refuses_each_malformed_body_with_a_specific_code_and_message(
    gateway, path, body, status, code, word
):
    answer = _post(gateway, path, body)
    found, message = _error(path, answer.json())
    assert (answer.status_code, found) == (status, code), message
    assert word.lower() in message.lower()


def test_engine_survives_every_malformed_body(gateway):
    engine = gateway.health()["engine"]
    for path, body, *_ in CASES:
        _post(gateway, path, body)
        after = gateway.health()["engine"]
        assert (after["pid"], after["restarts"]) == (engine["pid"], engine["restarts"]), f"{path}: {body!r}"


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("context_exceeded", 400),
        ("empty_prompt", 400),
        ("model_load_failed", 500),
        ("overloaded", 503),
        ("insufficient_memory", 507),
        ("model_not_found", 404),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_gateway_answers_each_engine_error_with_its_own_http_status_with_and_without_streaming(
    gateway, path, code, status, stream
):
    answer = gateway.http.post(path, json=gateway.chat(f"fail={code}", stream=stream))
    assert answer.status_code == status
    assert _error(path, answer.json())[0] == code
    assert ("retry-after" in answer.headers) is (status == 503)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/nope", 404, "not_found"),
        ("GET", "/v1/nope", 404, "not_found"),
        ("GET", "/api/chat", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/models/nix", 404, "model_not_found"),
    ],
)
def test_gateway_refuses_an_unknown_route_or_method_with_a_json_error(gateway, method, path, status, code):
    answer = gateway.http.request(method, path)
    assert answer.status_code == status
    assert _error(path, answer.json())[0] == code


def test_gateway_refuses_a_body_over_the_size_limit_and_serves_the_next_request(make_gateway):
    gateway = make_gateway(VESTAL_MLX__MAX_BODY_BYTES="1000").start().until_ok()
    answer = gateway.http.post("/api/chat", json=gateway.chat("x" * 2000))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    huge = gateway.http.post("/v1/chat/completions", json=gateway.chat("x" * 3500))
    assert (huge.status_code, huge.json()["error"]["code"]) == (413, "too_large")
    assert gateway.http.post("/api/chat", json=gateway.chat("tokens=1", stream=False)).status_code == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Origin": "https://evil.example"}, "forbidden"),
        ({"Origin": "null"}, "forbidden"),
        ({"Host": "evil.example"}, "forbidden"),
        ({"Host": "127.0.0.1.evil.example"}, "forbidden"),
    ],
)
def test_gateway_refuses_a_request_with_a_foreign_origin_or_host(gateway, headers, code):
    answer = gateway.http.post("/api/chat", json=gateway.chat("hello"), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, code)


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1", "http://[::1]:8080"])
def test_gateway_answers_a_request_from_a_localhost_web_page_with_cors_headers(gateway, origin):
    answer = gateway.http.get("/api/tags", headers={"Origin": origin})
    assert answer.headers["access-control-allow-origin"] == origin
    assert gateway.http.options("/api/chat", headers={"Origin": origin}).status_code == 204
