"""Bodies that no schema describes: invalid JSON, odd text, huge numbers and lists, deep nesting."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mlx_server.protocol import MAX_NESTING

HELLO = [{"role": "user", "content": "hello"}]
VALID: dict[str, dict[str, Any]] = {
    "/api/chat": {
        "messages": HELLO,
        "stream": False,
        "options": {"seed": 1, "stop": ["x"]},
        "keep_alive": "5m",
    },
    "/api/generate": {"prompt": "hello", "stream": False, "options": {"temperature": 0.5, "num_predict": 4}},
    "/api/embed": {"input": ["a", "b"], "truncate": True},
    "/api/embeddings": {"prompt": "hello"},
    "/v1/chat/completions": {"messages": HELLO, "max_tokens": 4, "stop": ["x"], "temperature": 0.5, "n": 1},
    "/v1/completions": {"prompt": ["hello"], "max_tokens": 4, "seed": 1},
    "/v1/embeddings": {"input": ["a", "b"], "encoding_format": "float"},
    "/v1/messages": {"messages": HELLO, "max_tokens": 4, "system": "x", "stop_sequences": ["x"]},
}
# Pieces of JSON text as sent, valid or not; Python's JSON writer would not produce all of them.
ODD = (
    st.sampled_from(
        [
            *(
                "NaN",
                "Infinity",
                "-Infinity",
                "1e999",
                "-1e999",
                "1e-999",
                "9" * 400,
                "-" + "9" * 5000,
                "0.1e1",
            ),
            *(
                '"\\ud800"',
                '"\\udc00\\ud800"',
                '"\\u0000"',
                '"\U0001f9ca\u202e\ufeff"',
                '""',
                '"nan"',
                '"-1"',
            ),
            *(
                "null",
                "true",
                "[]",
                "{}",
                "[[]]",
                '[""]',
                "[null]",
                '[{"": ""}]',
                "-1",
                "0",
                "18446744073709551616",
            ),
            *("[" * 900 + "]" * 900, '{"a":' * 900 + "1" + "}" * 900, "[" + "0," * 50_000 + "0]"),
            *('"' + "a" * 100_000 + '"', "[" + '"",' * 2_000 + '""]', "'x'", "undefined", "tru"),
        ]
    )
    | st.floats().map(json.dumps)
    | st.integers().map(str)
    | st.text(max_size=20).map(json.dumps)
)


def mutants(body: dict[str, Any]) -> st.SearchStrategy[str]:
    """Return bodies with one field replaced by an odd value at any depth, doubled, or joined by odd ones."""
    spots = list(_spots(body, ()))
    return st.builds(
        lambda spot, odd, how: how(body, spot, odd), st.sampled_from(spots), ODD, st.sampled_from(HOW)
    )


def _spots(value: Any, path: tuple[str | int, ...]) -> Any:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _spots(inner, (*path, key))


def replaced(body: Any, spot: tuple[str | int, ...], odd: str) -> str:
    marked = json.loads(json.dumps(body))
    holder = marked
    for step in spot[:-1]:
        holder = holder[step]
    holder[spot[-1]] = "\N{SNOWMAN}"
    return json.dumps(marked, ensure_ascii=False).replace('"\N{SNOWMAN}"', odd)


def doubled(body: Any, spot: tuple[str | int, ...], odd: str) -> str:
    return f'{{"{spot[0]}": {odd}, {json.dumps(body)[1:-1]}, "{spot[0]}": {odd}}}'


def wrapped(body: Any, spot: tuple[str | int, ...], odd: str) -> str:
    return f'{{{json.dumps(body)[1:-1]}, "more": {odd}, "{spot[0]}x": {odd}}}'


HOW = (replaced, replaced, replaced, doubled, wrapped)


@pytest.mark.hypothesis
@pytest.mark.parametrize("path", VALID)
def test_mutated_body_is_served_or_refused_in_its_dialects_envelope(gateway, path):
    pid = gateway.engine_pid()
    model = "vectors" if "embed" in path else "chat"

    @settings(
        max_examples=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(body=mutants({"model": model, **VALID[path]}))
    def each(body: str) -> None:
        answer = gateway.http.post(path, content=body.encode("utf-8", "surrogatepass"), timeout=10)
        assert answer.status_code in (200, 400, 404), f"{body[:300]}: {answer.text}"
        if answer.status_code != 200:
            body_of_error = answer.json()["error"]
            message = body_of_error["message"] if path.startswith("/v1") else body_of_error
            assert 10 < len(message) < 600

    each()
    health = gateway.health()
    assert (health["status"], health["engine"]["pid"]) == ("ok", pid)


@pytest.mark.parametrize("field", ["format", "tools"])
def test_json_nested_deeper_than_the_engine_link_carries_is_refused_and_the_engine_lives(gateway, field):
    pid = gateway.engine_pid()
    schema: dict[str, Any] = {}
    for _ in range(MAX_NESTING):
        schema = {"items": schema}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    odd = {"format": schema, "tools": [tool]}[field]
    answer = gateway.http.post("/api/chat", json={"model": "chat", **VALID["/api/chat"], field: odd})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert f"nested deeper than {MAX_NESTING} levels" in answer.json()["error"]
    assert gateway.engine_pid() == pid
    assert gateway.health()["requests"]["running"] == 0
    assert gateway.http.post("/api/chat", json={"model": "chat", **VALID["/api/chat"]}).status_code == 200


@pytest.mark.hypothesis
@pytest.mark.model
@pytest.mark.parametrize("path", VALID)
def test_real_engine_survives_mutated_bodies(small_gateway, path):
    pid = small_gateway.engine_pid()
    model = "all-minilm" if "embed" in path else "smollm2:135m"

    @settings(
        max_examples=8,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(body=mutants({"model": model, **VALID[path]}))
    def each(body: str) -> None:
        answer = small_gateway.http.post(path, content=body.encode("utf-8", "surrogatepass"), timeout=30)
        assert answer.status_code in (200, 400, 404), f"{body[:300]}: {answer.text}"

    each()
    health = small_gateway.health()
    assert (health["status"], health["engine"]["pid"]) == ("ok", pid)


@pytest.mark.model
@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
def test_prompt_longer_than_the_context_is_refused_with_both_figures(small_gateway, path):
    body = {
        "model": "smollm2:135m",
        "messages": [{"role": "user", "content": "word " * 500}],
        "max_tokens": 5,
    }
    answer = small_gateway.http.post(path, json=body)
    assert answer.status_code == 400
    error = answer.json() if path.startswith("/api") else answer.json()["error"]
    assert error["code"] == "context_exceeded"
    assert error["prompt_tokens"] > 500 > error["context_tokens"] == 96
    assert answer.text.count(str(error["prompt_tokens"])) >= 2  # as a field, and in the message
