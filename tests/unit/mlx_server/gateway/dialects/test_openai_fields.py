"""What OpenAI's clients send by habit is accepted with its meaning, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_server.gateway.dialects.answer_parts import AnswerPart
from mlx_server.gateway.dialects.bodies import validated
from mlx_server.gateway.dialects.openai import render
from mlx_server.gateway.dialects.openai.schema import ChatBody
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.requests.model_requests import GenerationRequest

HELLO = [{"role": "user", "content": "hello"}]
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}}


def request(**body: Any) -> GenerationRequest:
    return validated({"model": "m", "messages": HELLO, **body}, ChatBody).to_requests("m", 1)[0]


@pytest.mark.parametrize(
    ("response_format", "schema"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({}, None),
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_object", "schema": SCHEMA}, SCHEMA),
        ({"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}, SCHEMA),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, {"type": "object"}),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": None}}, {"type": "object"}),
        ({"type": "json_schema", "schema": SCHEMA}, SCHEMA),
    ],
)
def test_openai_response_format_in_every_form_becomes_the_json_schema_of_the_answer(response_format, schema):
    """llama.cpp and Together have the schema beside the type; OpenAI has it in `json_schema`."""
    assert request(response_format=response_format).json_schema == schema


@pytest.mark.parametrize(
    "wrong", [{"type": "json_schema"}, {"type": "grammar", "value": "x"}, {"type": "regex"}]
)
def test_unsupported_openai_response_format_is_refused_with_an_error_that_names_the_field(wrong):
    with pytest.raises(BadRequest, match="response_format"):
        request(response_format=wrong)


def test_openai_thinking_is_switched_off_by_each_field_name_and_by_two_together():
    """Agents that do not know their server send `reasoning_effort: none` and `enable_thinking: false`."""
    off = {"enable_thinking": False}
    for body in (
        {"reasoning_effort": "none", "chat_template_kwargs": off},
        {"reasoning": {"effort": "none"}},
        {"reasoning": {"enabled": False}},
    ):
        assert request(**body).think is False
    assert request(reasoning_effort="none", chat_template_kwargs=off).template == off
    assert request(reasoning={"effort": "low"}).template == {"reasoning_effort": "low"}
    assert request(reasoning_effort="high").think is None


def test_refusals_and_thinking_of_openai_assistant_messages_are_kept_whatever_their_form():
    def message(**fields: Any) -> dict[str, Any]:
        return (request(messages=[*HELLO, {"role": "assistant", **fields}, *HELLO]).messages or ())[1]

    refusal = {"role": "assistant", "content": "no"}
    assert message(content=[{"type": "refusal", "refusal": "no"}]) == refusal
    assert message(content=None, refusal="no") == refusal
    thought = {"role": "assistant", "content": "yes", "reasoning_content": "hm"}
    text = {"type": "text", "text": "yes"}
    assert message(content="yes", reasoning_content="hm") == thought
    assert message(content="yes", reasoning="hm") == thought
    assert message(content=[{"type": "thinking", "thinking": "hm"}, text]) == thought
    mistral = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    assert message(content=[mistral, text]) == thought


def test_openai_thinking_is_written_under_both_field_names_that_clients_read():
    for content in (
        render.CHAT.whole_content(AnswerPart("x", "hm"))["message"],
        render.CHAT.chunk_content(AnswerPart("", "hm"))["delta"],
    ):
        assert content["reasoning_content"] == content["reasoning"] == "hm"
    assert "reasoning" not in render.CHAT.chunk_content(AnswerPart("x"))["delta"]


def test_openai_logit_bias_is_sent_to_the_engine_by_token_id():
    assert request(logit_bias={"50": -100, "7": 1.5}).sampling.logit_bias == ((7, 1.5), (50, -100.0))
    assert request(logit_bias={}).sampling.logit_bias == ()
    assert request(logit_bias=None).sampling.logit_bias == ()


@pytest.mark.parametrize(
    ("bias", "word"),
    [
        ({"hello": 1}, "hello"),
        ({"5": 101}, "100"),
        ({"5": "x"}, "number"),
        ({"-1": 1}, "-1"),
        ({"9" * 30: 1}, "9"),
    ],
)
def test_openai_logit_bias_of_an_invalid_token_or_value_is_refused_with_the_reason(bias, word):
    with pytest.raises(BadRequest, match=rf"logit_bias.*{word}"):
        request(logit_bias=bias)


def test_openai_fields_without_an_effect_in_vestal_are_accepted():
    habits = {
        "stop": None,
        "n": None,
        "user": "u",
        "stream_options": None,
        "parallel_tool_calls": None,
        "store": True,
        "metadata": {"a": "b"},
        "service_tier": "auto",
        "prediction": {"type": "content", "content": "x"},
        "modalities": ["text"],
        "prompt_cache_key": "x",
        "safety_identifier": "x",
        "verbosity": "low",
        "seed": -1,
    }
    assert request(**habits).sampling.seed == 1  # the drawn one
    with pytest.raises(BadRequest, match="audio"):
        request(modalities=["text", "audio"])
