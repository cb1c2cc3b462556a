"""Test Anthropic's own client package against the real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.lazy_packages import LazyPackage

if TYPE_CHECKING:
    import anthropic
else:
    anthropic = LazyPackage("anthropic")

pytestmark = pytest.mark.model

MODEL = "smollm2:135m"
QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "Tells the weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
    },
}
FORCED: Any = {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "get_weather"}}


@pytest.fixture(scope="module")
def client(server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def real_client(real_server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=real_server.url, api_key="none", max_retries=0) as client:
        yield client


def _ask(client: anthropic.Anthropic, **more: Any) -> Any:
    asked: Any = {
        "model": MODEL,
        "messages": QUESTION,
        "max_tokens": 24,
        "extra_body": {"temperature": 0},
    } | more
    return client.messages.create(**asked)


def test_anthropic_client_receives_the_text_and_token_usage_and_stop_reason_of_an_answer(real_client):
    answer = _ask(real_client, system="You are a helpful AI assistant.")
    assert "Paris" in answer.content[0].text
    assert (answer.role, answer.stop_reason) == ("assistant", "end_turn")
    assert answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0
    assert _ask(real_client, max_tokens=2).stop_reason == "max_tokens"


def _prompt_tokens(usage: Any) -> int:
    """Return the length of the prompt: `input_tokens` are only those that were not in the cache."""
    return usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens


def test_anthropic_count_tokens_equals_the_input_tokens_of_the_message(client):
    counted = client.messages.count_tokens(
        model=MODEL, messages=QUESTION, system="Be brief.", tools=[WEATHER]
    )
    answer = _ask(client, system="Be brief.", tools=[WEATHER], max_tokens=2)
    assert counted.input_tokens == _prompt_tokens(answer.usage)
    with client.messages.stream(
        model=MODEL, messages=QUESTION, system="Be brief.", tools=[WEATHER], max_tokens=2
    ) as stream:
        start = next(event for event in stream if event.type == "message_start")
        assert start.message.usage.input_tokens == counted.input_tokens
    long: Any = [{"role": "user", "content": "word " * 20_000}]  # more than the context holds is counted too
    assert client.messages.count_tokens(model=MODEL, messages=long).input_tokens > 20_000


def test_anthropic_message_ended_by_a_stop_sequence_names_the_sequence(real_client):
    answer = _ask(real_client, stop_sequences=["Paris"])
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "Paris")
    assert "Paris" not in "".join(block.text for block in answer.content)


def test_anthropic_stream_whose_engine_is_killed_equals_the_uninterrupted_text(client, server):
    story: Any = [{"role": "user", "content": [{"type": "text", "text": "Tell me of a lighthouse."}]}]
    whole = _ask(client, messages=story, max_tokens=32)
    asked: Any = {"model": MODEL, "messages": story, "max_tokens": 32, "extra_body": {"temperature": 0}}
    server.kill_engine_after(tokens=9)
    with client.messages.stream(**asked) as stream:
        final = stream.get_final_message()
    assert server.engine_was_killed
    assert final.content[0].text == whole.content[0].text
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert _prompt_tokens(final.usage) == _prompt_tokens(whole.usage)


def test_anthropic_forced_tool_call_is_the_same_when_streamed_and_its_result_gets_an_answer(client):
    whole = _ask(client, max_tokens=60, **FORCED)
    (use,) = whole.content
    assert (whole.stop_reason, use.type, use.name, set(use.input)) == (
        "tool_use",
        "tool_use",
        "get_weather",
        {"city"},
    )
    asked: Any = {"model": MODEL, "messages": QUESTION, "max_tokens": 60, "extra_body": {"temperature": 0}}
    with client.messages.stream(**asked, **FORCED) as stream:
        (streamed,) = stream.get_final_message().content
    assert streamed.input == use.input
    result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "rain"}]}
    turns = [
        *QUESTION,
        {"role": "assistant", "content": [use.model_dump()]},
        {"role": "user", "content": [result]},
    ]
    assert _ask(client, messages=turns, tools=[WEATHER]).content


def test_anthropic_client_raises_not_found_or_bad_request_for_each_refused_message(client):
    with pytest.raises(anthropic.NotFoundError, match="smollm2") as missing:
        _ask(client, model="nix")
    assert "not_found_error" in str(missing.value.body)
    picture: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aa"}}
    with pytest.raises(anthropic.BadRequestError, match="text only"):
        _ask(client, messages=[{"role": "user", "content": [picture]}])
    with pytest.raises(anthropic.BadRequestError, match="not offered"):
        _ask(client, tools=[WEATHER], tool_choice={"type": "tool", "name": "nix"})


def test_anthropic_message_with_a_json_schema_gives_json_of_that_schema(client):
    """Earlier, `output_config.format` was ignored, and the answer was prose."""
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer"}},
        "required": ["age"],
        "additionalProperties": False,
    }
    wanted: Any = {"format": {"type": "json_schema", "schema": schema}}
    answer = _ask(client, output_config=wanted, max_tokens=30)
    assert list(json.loads(answer.content[0].text)) == ["age"]


def test_anthropic_prompt_that_differs_only_in_its_billing_header_is_reported_as_cached(client):
    """Claude Code's first system block differs in each conversation; the counts add up to the prompt."""

    def usage(header: str) -> Any:
        system: Any = [
            {"type": "text", "text": f"x-anthropic-billing-header: cc_version={header}; cch={header};"},
            {"type": "text", "text": "Keep each file tidy. " * 20, "cache_control": {"type": "ephemeral"}},
        ]
        return _ask(client, system=system, max_tokens=1).usage

    first, second = usage("a1b"), usage("c2d")
    assert _prompt_tokens(second) == _prompt_tokens(first)
    assert second.cache_read_input_tokens >= _prompt_tokens(first) - 16
