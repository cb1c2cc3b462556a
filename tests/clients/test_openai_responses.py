"""Test OpenAI's own client package against the Responses API of the real server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, Field

from tests.clients.openai_clients import client as client
from tests.clients.openai_clients import real_client as real_client
from tests.lazy_packages import LazyPackage

if TYPE_CHECKING:
    import openai
else:
    openai = LazyPackage("openai")

pytestmark = pytest.mark.model

MODEL = "smollm2:135m"
QUESTION = "What is the capital of France?"
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Tells the weather in a city.",
    "strict": False,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "unit": {"enum": ["C", "F"]}},
        "required": ["city", "unit"],
    },
}


def _ask(client: openai.OpenAI, content: Any = QUESTION, **more: Any) -> Any:
    asked = {"model": MODEL, "input": content, "temperature": 0, "max_output_tokens": 24} | more
    return client.responses.create(**asked)


def test_openai_response_has_text_and_usage_and_echoes_the_given_parameters(real_client):
    response = _ask(real_client, instructions="Answer in one sentence.", metadata={"a": "b"})
    assert "Paris" in response.output_text
    assert response.status == "completed"
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert (response.instructions, response.metadata) == ("Answer in one sentence.", {"a": "b"})


def test_openai_response_gives_the_same_text_with_and_without_streaming(real_client):
    whole = _ask(real_client).output_text
    with real_client.responses.stream(
        model=MODEL, input=QUESTION, temperature=0, max_output_tokens=24
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == whole
    assert len(deltas) > 1


def test_openai_response_can_be_continued_retrieved_and_deleted_and_its_input_listed(client):
    first = _ask(client, "My name is Alice.", max_output_tokens=8)
    second = _ask(client, "What is my name?", previous_response_id=first.id, max_output_tokens=8)
    assert second.usage.input_tokens > first.usage.input_tokens
    assert client.responses.retrieve(second.id).output_text == second.output_text
    items = list(client.responses.input_items.list(second.id, order="asc", limit=2))
    assert [item.role for item in items] == ["user", "assistant", "user"]
    client.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError) as missing:
        client.responses.retrieve(second.id)
    assert missing.value.code == "response_not_found"


class Capital(BaseModel):
    city: str = Field(max_length=20)
    sure: bool


def test_openai_responses_parse_with_a_pydantic_class_returns_an_instance_of_that_class(client):
    parsed = client.responses.parse(
        model=MODEL, input=QUESTION, temperature=0, max_output_tokens=60, text_format=Capital
    ).output_parsed
    assert isinstance(parsed, Capital)


def test_openai_response_calls_a_forced_function_and_continues_after_the_functions_output(client):
    asked = _ask(
        client, "The weather in Oslo?", tools=[WEATHER], tool_choice="required", max_output_tokens=60
    )
    (call,) = [item for item in asked.output if item.type == "function_call"]
    assert set(json.loads(call.arguments)) == {"city", "unit"}
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "12 degrees and rain"}
    answer = _ask(client, [output], previous_response_id=asked.id, max_output_tokens=4)
    assert answer.output_text


def test_openai_response_contains_logprobs_if_the_include_parameter_requests_them(client):
    response = _ask(client, include=["message.output_text.logprobs"], top_logprobs=2, max_output_tokens=4)
    rows = response.output[0].content[0].logprobs
    assert "".join(row.token for row in rows) == response.output_text
    assert all(len(row.top_logprobs) == 2 for row in rows)


def test_openai_background_response_can_be_cancelled_and_its_events_read(client):
    started = _ask(client, "Count to one thousand.", background=True, max_output_tokens=4000)
    assert started.status == "in_progress"
    assert client.responses.cancel(started.id).status == "cancelled"
    followed = list(client.responses.retrieve(started.id, stream=True, starting_after=0))
    assert [event.sequence_number for event in followed] == list(range(1, len(followed) + 1))


def test_openai_response_conversation_can_be_compacted_and_continued(client):
    history: Any = [
        {"role": "user", "content": "We launch on Tuesday."},
        {"role": "assistant", "content": "Noted."},
    ]
    compacted = client.responses.compact(model=MODEL, input=history)
    assert [item.type for item in compacted.output] == ["message", "compaction"]
    going_on = [
        *(item.to_dict(warnings=False) for item in compacted.output),
        {"role": "user", "content": "When?"},
    ]
    assert _ask(client, going_on).output_text


def test_openai_response_input_token_count_equals_the_usage_of_the_answer(client):
    counted = client.responses.input_tokens.count(model=MODEL, input=QUESTION)
    assert counted.input_tokens == _ask(client, max_output_tokens=1).usage.input_tokens


@pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager:DeprecationWarning")
def test_openai_response_over_a_websocket_is_answered(real_client):
    with real_client.responses.connect() as connection:
        connection.response.create(
            model=MODEL, input=QUESTION, temperature=0, max_output_tokens=24, store=False
        )
        for event in connection:
            if event.type == "response.completed":
                break
    assert "Paris" in event.response.output[0].content[0].text


def test_openai_client_raises_not_found_for_an_unknown_model_and_bad_request_for_an_invalid_field(client):
    with pytest.raises(openai.NotFoundError) as missing:
        _ask(client, model="nix")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="web_search") as refused:
        _ask(client, tools=[{"type": "web_search"}], tool_choice={"type": "web_search"})
    assert refused.value.code == "not_supported"
    with pytest.raises(openai.BadRequestError) as unknown:
        _ask(client, previous_response_id="resp_unknown")
    assert (unknown.value.code, unknown.value.param) == (
        "previous_response_not_found",
        "previous_response_id",
    )
