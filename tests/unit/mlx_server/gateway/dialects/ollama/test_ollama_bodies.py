"""What the bodies of Ollama's API mean: messages, options, think, format, context, suffix, template."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_server.gateway.dialects.bodies import validated
from mlx_server.gateway.dialects.ollama.schema import ChatBody, EmbedBody, EmbeddingsBody, GenerateBody
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.requests.model_requests import GenerationRequest

HELLO = {"role": "user", "content": "hello"}


def chat(*messages: dict, **fields: Any) -> GenerationRequest:
    body = {"model": "m", "messages": list(messages or (HELLO,)), **fields}
    return validated(body, ChatBody).to_request("m:latest", 1)


def generate(**fields: Any) -> GenerationRequest:
    return validated({"model": "m", "prompt": "Who?", **fields}, GenerateBody).to_request("m:latest", 1)


def embed(**options: Any) -> int | None:
    return (
        validated({"model": "m", "input": "a", "options": options}, EmbedBody).to_request("m").context_tokens
    )


def refusal(make: Any, *given: Any, **fields: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        make(*given, **fields)
    return caught.value.message


# --- messages ---


@pytest.mark.parametrize(
    ("role", "read"),
    [("USER", "user"), ("Developer", "system"), ("function", "tool"), ("moderator", "user")],
)
def test_ollama_role_is_accepted_in_any_case_and_an_unknown_role_becomes_user(role, read):
    """Ollama lowers the case of a role and accepts any: langchain4j sends USER, others send developer."""
    assert chat({"role": role, "content": "a"}).messages == ({"role": read, "content": "a"},)


def test_ollama_message_with_role_thinking_becomes_the_thinking_of_the_following_answer():
    """The editor extension Continue sends such messages."""
    thought, answer = {"role": "thinking", "content": "hm"}, {"role": "assistant", "content": "Hello"}
    messages = chat(HELLO, thought, answer, HELLO).messages
    assert messages == (HELLO, answer | {"reasoning_content": "hm"}, HELLO)
    assert chat(HELLO, thought).messages == (HELLO,)
    assert "thinking only" in refusal(chat, thought)


def test_ollama_tool_message_keeps_its_tool_name_whether_given_as_tool_name_or_name():
    for field in ("tool_name", "name"):
        messages = chat(HELLO, {"role": "tool", "content": "11 degrees", field: "temperature"}).messages
        assert messages and messages[1] == {"role": "tool", "content": "11 degrees", "name": "temperature"}


def test_ollama_image_for_a_text_model_is_refused_in_the_last_turn_and_replaced_by_a_note_in_earlier_ones():
    """A client that changes to a text model in mid-conversation sends the images of its earlier turns."""
    seen = {"role": "user", "content": "Look.", "images": ["iVBORw0KGgo="]}
    answer = {"role": "assistant", "content": "A cat."}
    assert "reads text only" in refusal(chat, HELLO, seen)
    messages = chat(seen, answer, HELLO).messages
    assert messages and messages[0]["content"] == "Look.\n[An image was here; this model reads text only.]"
    assert chat({**HELLO, "images": []}).messages == (HELLO,)


# --- options ---


def test_ollama_options_given_as_text_or_with_fractions_are_read_as_numbers():
    """Forms and environment variables hold text; Go cuts the fraction of a whole number off."""
    options = {"num_ctx": "512", "temperature": "0.5", "num_predict": 7.9, "seed": "42", "top_k": "3.0"}
    request = chat(options=options)
    assert (request.context_tokens, request.max_tokens) == (512, 7)
    sampling = request.sampling
    assert (sampling.temperature, sampling.seed, sampling.top_k) == (0.5, 42, 3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"top_k": 10**12}, {"top_k": 2**31 - 1}),
        ({"temperature": 1e9}, {"temperature": 100.0}),
        ({"repeat_last_n": -7}, {"repeat_last_tokens": 2**31 - 1}),
        ({"presence_penalty": -1e9, "frequency_penalty": 1e9}, {"presence_penalty": -100.0}),
        ({"seed": -1}, {"seed": 1}),
    ],
)
def test_ollama_option_far_outside_its_range_becomes_the_nearest_limit(options, expected):
    sampling = chat(options=options).sampling
    assert {name: getattr(sampling, name) for name in expected} == expected


def test_ollama_negative_num_predict_becomes_unlimited_and_too_large_num_ctx_becomes_the_maximum():
    assert chat(options={"num_predict": -5, "num_ctx": -5}).max_tokens is None
    assert chat(options={"num_ctx": 10**12}).context_tokens == 2**31 - 1


@pytest.mark.parametrize("value", ["warm", "nan", "1e999", True, [], {}, "1" * 100])
@pytest.mark.parametrize("option", ["temperature", "num_ctx", "seed"])
def test_ollama_option_that_is_not_a_number_is_refused_with_an_error_that_names_the_option(option, value):
    assert f"options.{option}" in refusal(chat, options={option: value})


def test_unknown_ollama_options_are_ignored():
    assert chat(options={"num_gpu": "all", "mirostat": [], "penalize_newline": True}) == chat()


@pytest.mark.parametrize(("num_ctx", "tokens"), [(3, 3), ("30", 30), (0, 0), (-1, None), (None, None)])
def test_ollama_num_ctx_limits_the_tokens_of_an_embedding_text(num_ctx, tokens):
    assert embed(num_ctx=num_ctx) == tokens
    body = validated({"model": "m", "prompt": "a", "options": {"num_ctx": num_ctx}}, EmbeddingsBody)
    assert body.to_request("m").context_tokens == tokens


# --- truncate, think, format, logprobs ---


@pytest.mark.parametrize(
    ("fields", "truncate", "shift"),
    [
        ({}, True, True),
        ({"truncate": None, "shift": None}, True, True),
        ({"truncate": False}, False, False),
        ({"shift": False}, True, False),
    ],
)
def test_ollama_prompt_longer_than_the_context_may_be_shortened_unless_truncate_is_false(
    fields, truncate, shift
):
    for request in (chat(**fields), generate(**fields)):
        assert (request.truncate, request.shift) == (truncate, shift)
    assert (chat().shortens_text, generate().shortens_text) == (False, True)


@pytest.mark.parametrize(
    ("think", "thinks", "effort"),
    [
        (True, True, None),
        (False, False, None),
        (None, None, None),
        ("low", True, "low"),
        ("medium", True, "medium"),
        ("high", True, "high"),
        ("max", True, "high"),
    ],
)
def test_ollama_think_in_each_form_sets_thinking_and_its_effort(think, thinks, effort):
    for request in (chat(think=think), generate(think=think)):
        assert request.think is thinks
        assert (request.template or {}).get("reasoning_effort") == effort


@pytest.mark.parametrize("think", ["true", "", "extreme", 1, []])
def test_ollama_think_with_an_unknown_level_is_refused_with_an_error_that_names_the_field(think):
    assert refusal(chat, think=think).startswith("think: ")


@pytest.mark.parametrize(
    ("given", "schema"),
    [
        (None, None),
        ("", None),
        ("json", {"type": "object"}),
        ({}, {}),
        ({"type": "integer"}, {"type": "integer"}),
    ],
)
def test_ollama_format_in_each_form_becomes_the_json_schema_of_the_answer(given, schema):
    assert chat(format=given).json_schema == schema
    assert generate(format=given).json_schema == schema


def test_ollama_format_with_an_unknown_name_is_refused_with_ollamas_message():
    assert 'invalid format; expected "json" or a valid JSON Schema object' in refusal(chat, format="xml")


def test_ollama_top_logprobs_out_of_range_are_refused_with_ollamas_message():
    for number in (-1, 21):
        assert "top_logprobs: must be between 0 and 20" in refusal(chat, logprobs=True, top_logprobs=number)
    assert chat(top_logprobs=5).top_logprobs is None
    assert chat(logprobs=True).top_logprobs == 0


# --- /api/generate ---


def test_ollama_generate_accepts_context_tokens_and_asks_for_their_return():
    request = generate(context=[1, 2.0])
    assert (request.context_ids, request.returns_context) == ((1, 2), True)
    assert generate().context_ids == ()
    assert refusal(generate, context=["a"]).startswith("context.0: ")


@pytest.mark.parametrize("more", [{"system": "s"}, {"template": "{{ .Prompt }}"}, {"context": [1]}])
def test_ollama_raw_prompt_with_template_fields_is_refused_with_ollamas_message(more):
    assert "raw mode does not support template, system, or context" in refusal(generate, raw=True, **more)


def test_ollama_raw_prompt_is_continued_without_a_template():
    request = generate(raw=True, context=[], system="")
    assert (request.kind, request.prompt, request.returns_context) == ("text", "Who?", False)


def test_ollama_suffix_asks_for_the_text_between_prompt_and_suffix():
    request = generate(prompt="def f(", suffix="return 1")
    assert (request.kind, request.prompt, request.suffix) == ("text", "def f(", "return 1")
    assert generate(prompt="", suffix="b").suffix == "b"
    assert generate(suffix="").suffix is None
    assert generate(prompt="def f(", suffix="return 1", raw=True).suffix == "return 1"


def test_ollama_template_in_a_generate_request_renders_the_prompt_of_that_request():
    request = generate(template="{{ .System }} Q: {{ .Prompt }} A:", system="Be brief.")
    assert (request.kind, request.prompt) == ("text", "Be brief. Q: Who? A:")
    assert generate(template="Q: {{ .Prompt }} S: {{ .Suffix }}", suffix="b").prompt == "Q: Who? S: b"
    jinja = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    request = generate(template=jinja, system="Be brief.")
    assert (request.kind, request.chat_template, len(request.messages or ())) == ("chat", jinja, 2)
    levels = {"low": "true low true", False: "false  true", True: "true medium true", None: "false  false"}
    for think, written in levels.items():
        template = "{{ .Think }} {{ .ThinkLevel }} {{ .IsThinkSet }}"
        assert generate(template=template, think=think).prompt == written
