"""Valid and extreme settings and schemas, on the real engine: each gets an answer or a refusal."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.model

LIMIT = 2**31 - 1
WORDS = st.text(max_size=6) | st.sampled_from(["<|im_end|>", "</s>", "\x00", "\n\n", "\U0001f9ca", "{", '"'])
SETTINGS = st.fixed_dictionaries(
    {"num_predict": st.sampled_from([1, 2, 5, 8])},
    optional={
        "temperature": st.sampled_from([0, 1e-30, 1e-5, 0.5, 2, 100]),
        "top_p": st.sampled_from([0, 1e-12, 0.5, 1]),
        "top_k": st.sampled_from([0, 1, 49151, 49152, 49153, LIMIT]),
        "min_p": st.sampled_from([0, 1e-12, 0.5, 1]),
        "repeat_penalty": st.sampled_from([1e-9, 0.5, 1, 100]),
        "repeat_last_n": st.sampled_from([-1, 0, 1, LIMIT]),
        "presence_penalty": st.sampled_from([-100, 0, 100]),
        "frequency_penalty": st.sampled_from([-100, 0, 100]),
        "seed": st.sampled_from([-1, 0, 2**31, 2**63, 2**64, -(2**70), 10**30]),
        "num_ctx": st.sampled_from([1, 2, 64, LIMIT]),
        "stop": st.lists(WORDS, max_size=4) | WORDS,
    },
)
NUMBERS = st.sampled_from([-1, 0, 1, 2, 10**9, -0.5, 1e300])
KEYWORDS = {
    "type": st.sampled_from(["object", "array", "string", "number", "integer", "boolean", "null", "odd", 3]),
    "enum": st.lists(st.sampled_from([1, "a", None, {}, [1], True, 1.5]), max_size=3),
    "const": st.sampled_from([1, "a", None, {}, [], "\u0000"]),
    "required": st.lists(st.sampled_from(["a", "b", ""]), max_size=2),
    "pattern": st.sampled_from(["a+", "^[a-z]{3}$", "(", "(?=x)", "\\p{L}", ".*" * 20, "(a*)*b", 3]),
    "format": st.sampled_from(["date-time", "email", "uuid", "odd"]),
    "minLength": NUMBERS,
    "maxLength": NUMBERS,
    "minimum": NUMBERS,
    "maximum": NUMBERS,
    "multipleOf": NUMBERS,
    "minItems": NUMBERS,
    "maxItems": NUMBERS,
    "uniqueItems": st.booleans(),
    "$ref": st.sampled_from(["#", "#/$defs/a", "#/properties/a", "http://127.0.0.1:1/x", "nowhere"]),
}
SCHEMAS = st.recursive(
    st.fixed_dictionaries({}, optional=KEYWORDS),
    lambda inner: st.fixed_dictionaries(
        {},
        optional=KEYWORDS
        | {
            "properties": st.dictionaries(st.sampled_from(["a", "b", "", "\u0000"]), inner, max_size=2),
            "items": inner | st.booleans(),
            "prefixItems": st.lists(inner, max_size=2),
            "additionalProperties": inner | st.booleans(),
            "anyOf": st.lists(inner, max_size=2),
            "oneOf": st.lists(inner, max_size=2),
            "allOf": st.lists(inner, max_size=2),
            "not": inner,
            "$defs": st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
        },
    ),
    max_leaves=4,
)
BOUNDED = settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)


def ask(gateway: Any, path: str, body: dict[str, Any]) -> None:
    pid = gateway.engine_pid()
    began = time.monotonic()
    answer = gateway.http.post(path, content=json.dumps({"model": "smollm2:135m", "stream": False} | body))
    assert answer.status_code in (200, 400), f"{body}: {answer.text}"
    assert time.monotonic() - began < 20, body
    assert gateway.engine_pid() == pid, body


@pytest.mark.hypothesis
def test_request_with_extreme_ollama_options_is_served_or_refused_by_the_real_engine(small_gateway):
    @BOUNDED
    @given(options=SETTINGS, prompt=WORDS.filter(bool), raw=st.booleans())
    def each(options: dict[str, Any], prompt: str, raw: bool) -> None:
        ask(small_gateway, "/api/generate", {"prompt": prompt, "raw": raw, "options": options})

    each()


@pytest.mark.hypothesis
def test_request_with_any_json_schema_is_served_or_refused_in_time_by_the_real_engine(small_gateway):
    @BOUNDED
    @given(schema=SCHEMAS)
    def each(schema: dict[str, Any]) -> None:
        turns = [{"role": "user", "content": "Answer."}]
        ask(small_gateway, "/api/chat", {"messages": turns, "format": schema, "options": {"num_predict": 6}})

    each()


@pytest.mark.hypothesis
def test_request_with_any_tool_is_served_or_refused_in_time_by_the_real_engine(small_gateway):
    @BOUNDED
    @given(name=WORDS, parameters=SCHEMAS, forced=st.booleans())
    def each(name: str, parameters: dict[str, Any], forced: bool) -> None:
        tool = {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}
        body = {"messages": [{"role": "user", "content": "Call."}], "tools": [tool], "max_tokens": 6}
        ask(small_gateway, "/v1/chat/completions", body | ({"tool_choice": "required"} if forced else {}))

    each()


@pytest.mark.hypothesis
def test_request_with_any_template_variable_is_served_or_refused_by_the_real_engine(small_gateway):
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | WORDS,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
        max_leaves=4,
    )
    names = st.sampled_from(
        ["messages", "tools", "bos_token", "enable_thinking", "add_generation_prompt", "x y"]
    )

    @BOUNDED
    @given(variables=st.dictionaries(names | WORDS, values, max_size=3))
    def each(variables: dict[str, Any]) -> None:
        turns = [{"role": "user", "content": "Hello."}]
        body = {"messages": turns, "max_tokens": 2, "chat_template_kwargs": variables}
        ask(small_gateway, "/v1/chat/completions", body)

    each()


LONG = {"words": "word " * 6_000_000, "digits": "0123456789" * 3_000_000, "one word": "a" * 30_000_000}


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        # Each tokenizer reads all of them; the other routes lead to the first one's.
        *(("/api/generate", kind) for kind in LONG),
        *(("/api/embed", kind) for kind in LONG),
        ("/api/chat", "one word"),
        ("/v1/completions", "digits"),
        ("/v1/messages/count_tokens", "words"),
    ],
)
def test_prompt_of_thirty_megabytes_is_refused_or_truncated_within_15_s(small_gateway, path, kind):
    pid, began = small_gateway.engine_pid(), time.monotonic()
    turns = {"messages": [{"role": "user", "content": LONG[kind]}]}
    asked: dict[str, Any] = {"/api/chat": turns, "/v1/messages/count_tokens": turns}
    asked["/api/embed"] = {"input": LONG[kind], "model": "all-minilm"}
    body = {"model": "smollm2:135m", "stream": False, **asked.get(path, {"prompt": LONG[kind]})}
    answer = small_gateway.http.post(path, json=body, timeout=60)
    assert answer.status_code == (200 if path in ("/api/embed", "/api/generate") else 400)
    assert answer.status_code == 200 or "context_exceeded" in answer.text
    assert time.monotonic() - began < 15
    assert small_gateway.engine_pid() == pid


HI = {"messages": [{"role": "user", "content": "hi"}]}
LONG_CHAT = {"messages": [{"role": "user", "content": "word " * 200}], "options": {"num_ctx": 64}}


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/api/generate", {"prompt": "def f(", "suffix": "return"}, "does not support insert"),
        ("/api/chat", {**HI, "think": "high"}, "does not support thinking"),
        ("/api/chat", LONG_CHAT, "input length exceeds the context length"),
        ("/api/chat", {**LONG_CHAT, "truncate": False}, "prompt is too long: 2"),
        (
            "/api/generate",
            {"prompt": "word " * 200, "truncate": False, "options": {"num_ctx": 64}},
            "input length exceeds the context length",
        ),
        ("/api/generate", {"prompt": "a", "context": [10**6]}, "is not a token of this model"),
        (
            "/api/embed",
            {"model": "all-minilm", "input": "why is", "truncate": False, "options": {"num_ctx": 3}},
            "input length exceeds the context length",
        ),
        (
            "/api/embed",
            {"model": "all-minilm", "input": "why", "options": {"num_ctx": 1}},
            "input after truncation exceeds maximum context length",
        ),
    ],
)
def test_ollama_request_that_only_the_engine_can_refuse_is_a_400_with_ollamas_message(
    small_gateway, path, body, words
):
    answer = small_gateway.http.post(path, json={"model": "smollm2:135m", "stream": False, **body})
    assert (answer.status_code, words in answer.json()["error"]) == (400, True)


def test_openai_completion_with_a_suffix_is_a_400_if_the_model_does_not_support_it(small_gateway):
    body = {"model": "smollm2:135m", "prompt": "def f(", "suffix": "return"}
    answer = small_gateway.http.post("/v1/completions", json=body)
    assert (answer.status_code, "does not support insert" in answer.text) == (400, True)


def test_ollama_embedding_with_a_num_ctx_of_three_embeds_only_the_first_word(small_gateway):
    def embed(text: str, **more: Any) -> dict[str, Any]:
        body = {"model": "all-minilm", "input": text, **more}
        return dict(small_gateway.http.post("/api/embed", json=body).json())

    cut = embed("why is the sky blue?", options={"num_ctx": 3})
    assert (cut["prompt_eval_count"], cut["embeddings"]) == (3, embed("why")["embeddings"])


def test_ollama_generate_with_the_context_of_an_answer_continues_its_conversation(small_gateway):
    def generate(**body: Any) -> dict[str, Any]:
        options = {"temperature": 0, "num_predict": 3, "num_ctx": 96}
        body = {"model": "smollm2:135m", "stream": False, "options": options, **body}
        return dict(small_gateway.http.post("/api/generate", json=body).json())

    first = generate(prompt="One,")
    assert len(first["context"]) == first["prompt_eval_count"] + first["eval_count"]
    second = generate(prompt="And?", context=first["context"])
    assert second["context"][: len(first["context"])] == first["context"]
    assert second["prompt_eval_count"] == len(first["context"]) + generate(prompt="And?")["prompt_eval_count"]


def test_completion_of_one_or_two_million_token_ids_is_refused_with_the_limit(small_gateway):
    body = {"model": "smollm2:135m", "prompt": [1] * 2_000_000}
    answer = small_gateway.http.post("/v1/completions", json=body)
    assert (answer.status_code, "1179648" in answer.text) == (413, True)
    body = {"model": "smollm2:135m", "prompt": [1] * 1_100_000}
    answer = small_gateway.http.post("/v1/completions", json=body)
    assert (answer.status_code, "1048576" in answer.text) == (400, True)
