"""Bodies that no schema describes: odd values at any depth of real bodies, in every dialect.

Whatever comes in, no answer is a 500, every answer can be read by a strict parser, and the engine, its slots
and the next request are unharmed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from functools import partial
from typing import Any, NoReturn

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from mlx_server.protocol import MAX_NESTING
from tests.bodies.mutated_bodies import BODIES, RERANK, TOOL, mutants
from tests.models.random_rerankers import FAMILIES

DOCUMENTED = (200, 400, 404)
HELLO = [{"role": "user", "content": "hello"}]
CHAT = {"model": "chat", "messages": HELLO, "stream": False}
UNTIMED = settings(deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])


def assert_strictly_readable(answer: httpx.Response) -> None:
    """Check that the answer is valid UTF-8, and each of its lines JSON without NaN or Infinity."""
    text = answer.content.decode("utf-8")
    kind = answer.headers["content-type"].partition(";")[0]
    lines = text.splitlines()  # as httpx divides a stream into lines
    if kind == "text/event-stream":
        texts = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        texts = [each for each in texts if each != "[DONE]"]
        assert all(line.startswith(("data: ", "event: ")) for line in lines if line), text
    else:
        texts = lines if kind == "application/x-ndjson" else [text]
    for each in texts:
        assert isinstance(json.loads(each, parse_constant=_not_json), dict | list), each


def _not_json(name: str) -> NoReturn:
    raise AssertionError(f"{name} in an answer")


@contextlib.contextmanager
def unharmed(gateway: Any, chat: str) -> Iterator[None]:
    """Check that the engine is the same afterwards, no request is left, and one is served."""

    def health_without_requests() -> dict[str, Any] | None:
        health: dict[str, Any] = gateway.health()
        return None if any(health["requests"][name] for name in ("running", "queued", "parked")) else health

    before = gateway.until(health_without_requests, "earlier requests have ended")
    yield
    after = gateway.until(health_without_requests, "no request holds a slot")
    assert (after["status"], after["engine"]["pid"]) == ("ok", before["engine"]["pid"])
    assert after["engine"]["restarts"] == before["engine"]["restarts"]
    body = {**CHAT, "model": chat, "options": {"num_predict": 2}}
    assert gateway.http.post("/api/chat", json=body).status_code == 200


@pytest.fixture(scope="module")
def gateway(gateway: Any) -> Any:
    """The shared gateway, which has a reranker too."""
    return with_reranker(gateway)


@pytest.fixture(scope="module")
def roomy_gateway(roomy_gateway: Any) -> Any:
    return with_reranker(roomy_gateway)


def with_reranker(gateway: Any) -> Any:
    FAMILIES["bert"](gateway.home / "found" / RERANK)
    gateway.until(lambda: gateway.http.post("/api/show", json={"model": RERANK}).is_success, "it is listed")
    return gateway


def send_mutants(gateway: Any, path: str, examples: int, **models: str) -> None:
    """Send `examples` bodies, and check each answer."""

    @settings(UNTIMED, max_examples=examples)
    @given(body=mutants(path, **models))
    def each(body: str) -> None:
        answer = gateway.http.post(path, content=body.encode("utf-8", "surrogatepass"), timeout=60)
        assert answer.status_code in DOCUMENTED, f"{body[:2000]}: {answer.text[:2000]}"
        assert_strictly_readable(answer)
        if answer.status_code != 200:
            error = answer.json()["error"]
            message = error if isinstance(error, str) else error["message"]
            assert 10 < len(message) < 600

    each()


@pytest.mark.parametrize("path", BODIES)
def test_request_bodies_typical_of_real_clients_get_status_200(gateway, path):
    send_originals(gateway, path)


@pytest.mark.model
@pytest.mark.parametrize("path", BODIES)
def test_request_bodies_typical_of_real_clients_get_status_200_with_the_real_engine(roomy_gateway, path):
    send_originals(roomy_gateway, path, chat="smollm2:135m", vectors="all-minilm")


def send_originals(gateway: Any, path: str, **names: str) -> None:
    """Send each body of `path`, its model called as `names` says, and check that it is served."""
    for body in BODIES[path]:
        model = names.get(body["model"], body["model"])
        answer = gateway.http.post(path, json={**body, "model": model})
        assert answer.status_code == 200, answer.text
        assert_strictly_readable(answer)


@pytest.mark.hypothesis
@pytest.mark.parametrize("path", BODIES)
def test_randomly_mutated_request_bodies_get_status_200_or_a_400_or_404_with_an_error_message(gateway, path):
    with unharmed(gateway, "chat"):
        send_mutants(gateway, path, 60)


# Each of these once kept a slot forever, ended three engines, or was answered 500.
HUGE = {"type": "number", "maximum": "@"}


def deep(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


UNSENDABLE: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "a past call that is a string": (
        "/api/chat",
        {"messages": [*HELLO, {"role": "assistant", "tool_calls": [{"function": "@"}]}]},
        '"get_weather"',
        "messages.1.tool_calls.0.function",
    ),
    "1e999 in format": ("/api/chat", {"messages": HELLO, "format": HUGE}, "1e999", "1.8e308"),
    "1e999 in a format that is streamed": (
        "/api/chat",
        {"messages": HELLO, "format": HUGE, "stream": True},
        "1e999",
        "1.8e308",
    ),
    "1e999 in response_format": (
        "/v1/chat/completions",
        {
            "messages": HELLO,
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": HUGE}},
        },
        "1e999",
        "1.8e308",
    ),
    "-1e999 in an input_schema": (
        "/v1/messages",
        {
            "messages": HELLO,
            "max_tokens": 4,
            "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {"a": HUGE}}}],
        },
        "-1e999",
        "tools.0.function.parameters.properties.a.maximum",
    ),
    "1e999 in an input": (
        "/v1/messages/count_tokens",
        {
            "messages": [
                *HELLO,
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"x": "@"}}],
                },
            ]
        },
        "1e999",
        "messages.1.tool_calls.0.function.arguments.x",
    ),
    "1e999 for the template": (
        "/v1/chat/completions",
        {"messages": HELLO, "chat_template_kwargs": {"x": ["@"]}},
        "1e999",
        "template",
    ),
    "deep tools": (
        "/v1/chat/completions",
        {"messages": HELLO, "tools": [{**TOOL, "x": "@"}]},
        deep(955),
        "deep",
    ),
    "a deep format": ("/api/generate", {"prompt": "a", "format": "@"}, deep(940), "deep"),
    "deep arguments of Ollama": (
        "/api/chat",
        {
            "messages": [
                *HELLO,
                {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "@"}}]},
            ]
        },
        deep(940),
        "deep",
    ),
    "1e999 as a text to embed": ("/api/embed", {"model": "vectors", "input": "@"}, "1e999", "input"),
    "1e999 as texts to embed": ("/v1/embeddings", {"model": "vectors", "input": ["@"]}, "1e999", "input"),
}


@pytest.mark.parametrize("case", UNSENDABLE)
def test_body_with_a_value_that_the_engine_cannot_receive_is_a_400_that_names_the_value_or_field(
    gateway, case
):
    path, fields, odd, said = UNSENDABLE[case]
    body = json.dumps({"model": "chat", **fields}).replace('"@"', odd)
    with unharmed(gateway, "chat"):
        answer = gateway.http.post(path, content=body)
        assert (answer.status_code, "invalid_request" in answer.text) == (400, True), answer.text
        assert said in answer.text


@pytest.mark.parametrize(
    "arguments", ['{"x": NaN}', '{"x": 1e999}', '{"a": 1', "[1]", deep(955)], ids=lambda text: text[:8]
)
def test_chat_with_a_past_call_whose_arguments_are_not_a_json_object_is_answered(gateway, arguments):
    """Another provider's model may have written them, and each later turn of the chat would be refused."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    past = {"role": "assistant", "content": None, "tool_calls": [call]}
    messages = [*HELLO, past, {"role": "tool", "tool_call_id": "c", "content": "1"}]
    item = {"type": "function_call", "call_id": "c", "name": "f", "arguments": arguments}
    with unharmed(gateway, "chat"):
        body = {"model": "chat", "messages": messages, "max_tokens": 2}
        assert gateway.http.post("/v1/chat/completions", json=body).status_code == 200
        body = {"model": "chat", "messages": messages, "options": {"num_predict": 2}, "stream": False}
        assert gateway.http.post("/api/chat", json=body).status_code == 200
        body = {"model": "chat", "input": [*HELLO, item], "max_output_tokens": 16}
        assert gateway.http.post("/v1/responses", json=body).status_code == 200


@pytest.mark.parametrize("dialect", ["/api/chat", "/v1/chat/completions", "/v1/messages", "/v1/responses"])
@pytest.mark.parametrize("stream", [False, True])
def test_request_that_the_engine_refuses_is_a_400_with_and_without_streaming(gateway, dialect, stream):
    """Only the engine finds that no text satisfies a schema, after the gateway has accepted the request."""
    messages = [{"role": "user", "content": "fail=invalid_request"}]
    body = {"model": "chat", "messages": messages, "input": messages, "stream": stream, "max_tokens": 3}
    with unharmed(gateway, "chat"):
        answer = gateway.http.post(dialect, json=body)
    assert answer.status_code == 400
    error = answer.json() if dialect == "/api/chat" else answer.json()["error"]
    assert error["code"] == "invalid_request"


@pytest.mark.parametrize("keep_alive", [10**12, "1000000000000s", "9999999h", 1e300, 10**400])
def test_keep_alive_of_very_many_years_counts_as_forever_and_api_ps_shows_a_valid_expiry_date(
    gateway, keep_alive
):
    """Earlier, a keep-alive of 10¹² seconds made GET /api/ps a 500 for every client."""

    def expires_between(least: str, most: str) -> bool:
        """Return whether the model is shown with such a date; it is not before the engine has reported it."""
        models = gateway.http.get("/api/ps").raise_for_status().json()["models"]
        return any(each["name"] == "chat:latest" and least < each["expires_at"] < most for each in models)

    for value, least, most in (("5m", "2000", "2100"), (keep_alive, "2100", "2200")):
        body = {"model": "chat", "keep_alive": value}
        assert gateway.http.post("/api/generate", json=body).status_code == 200
        gateway.until(partial(expires_between, least, most), f"the keep-alive is {value!r}")


@pytest.mark.parametrize("field", ["format", "tools"])
def test_body_with_too_deeply_nested_json_is_refused_and_the_engine_survives(gateway, field):
    schema: dict[str, Any] = {}
    for _ in range(MAX_NESTING):
        schema = {"items": schema}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    odd = {"format": schema, "tools": [tool]}[field]
    with unharmed(gateway, "chat"):
        answer = gateway.http.post("/api/chat", json={**CHAT, field: odd})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert f"nested deeper than {MAX_NESTING} levels" in answer.json()["error"]


@pytest.mark.hypothesis
@pytest.mark.model
@pytest.mark.timeout(180)
@pytest.mark.parametrize("path", BODIES)
def test_real_engine_survives_randomly_mutated_request_bodies(roomy_gateway, path):
    with unharmed(roomy_gateway, "smollm2:135m"):
        send_mutants(roomy_gateway, path, 10, chat="smollm2:135m", embed="all-minilm")


@pytest.mark.model
@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_chat_prompt_longer_than_the_context_is_refused_with_both_token_counts(roomy_gateway, path):
    body = {
        "model": "smollm2:135m",
        "messages": [{"role": "user", "content": "word " * 3000}],
        "input": "word " * 3000,
        "max_tokens": 5,
    }
    answer = roomy_gateway.http.post(path, json=body)
    assert answer.status_code == 400
    error = answer.json() if path.startswith("/api") else answer.json()["error"]
    assert error["code"] == "context_exceeded"
    assert error["prompt_tokens"] > 3000 > error["context_tokens"] == 640
    assert answer.text.count(str(error["prompt_tokens"])) >= 2  # as a field, and in the message


@pytest.mark.model
def test_response_with_truncation_auto_shortens_a_too_long_conversation_to_fit_the_context(
    roomy_gateway,
):
    turns = [{"role": "user", "content": f"Turn {number}: {'word ' * 300}"} for number in range(10)]
    body = {"model": "smollm2:135m", "input": turns, "truncation": "auto", "max_output_tokens": 2}
    answer = roomy_gateway.http.post("/v1/responses", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    assert 300 < answer.json()["usage"]["input_tokens"] < 1024


ENDLESS = {
    "$ref": "#/$defs/n",
    "$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}, "required": ["n"]}},
}
FORCED = {"name": "f", "parameters": ENDLESS}
WITHOUT_SENTENCES: dict[str, tuple[str, dict[str, Any]]] = {
    "Ollama's format": ("/api/chat", {"format": ENDLESS}),
    "OpenAI's response_format": (
        "/v1/chat/completions",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": ENDLESS}}},
    ),
    "OpenAI's forced tool": (
        "/v1/chat/completions",
        {"tools": [{"type": "function", "function": FORCED}], "tool_choice": "required"},
    ),
    "text.format of a response": (
        "/v1/responses",
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": ENDLESS}}},
    ),
    "forced tool of a response": (
        "/v1/responses",
        {"tools": [{"type": "function", **FORCED}], "tool_choice": "required"},
    ),
    "Anthropic's forced tool": (
        "/v1/messages",
        {"tools": [{"name": "f", "input_schema": ENDLESS}], "tool_choice": {"type": "any"}, "max_tokens": 5},
    ),
}


@pytest.mark.model
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", WITHOUT_SENTENCES)
def test_json_schema_that_no_text_can_satisfy_is_a_400_in_every_api_dialect(roomy_gateway, case, stream):
    """Such a request was once answered with 200 and an empty text."""
    path, fields = WITHOUT_SENTENCES[case]
    body = {"model": "smollm2:135m", "messages": HELLO, "input": HELLO, "stream": stream, **fields}
    with unharmed(roomy_gateway, "smollm2:135m"):
        answer = roomy_gateway.http.post(path, json=body, timeout=60)
    assert (answer.status_code, "invalid_request" in answer.text) == (400, True), answer.text
    assert "schema" in answer.text
