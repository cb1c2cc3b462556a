"""Test OpenAI's own client package against the real server."""

from __future__ import annotations

import base64
import json
import math
from array import array
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.clients.openai_clients import client as client
from tests.clients.openai_clients import real_client as real_client
from tests.lazy_packages import LazyPackage

if TYPE_CHECKING:
    import openai
else:
    openai = LazyPackage("openai")

pytestmark = pytest.mark.model

MODEL = "smollm2:135m"
QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]


def _ask(client: openai.OpenAI, **more):
    return client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=24, **more
    )


def test_openai_chat_returns_text_and_usage(real_client):
    answer = _ask(real_client)
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_openai_chat_stream_has_one_id_and_ends_with_usage(real_client):
    chunks = list(_ask(real_client, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "Paris" in text
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].usage.completion_tokens > 0
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == [
        "stop"
    ]


def test_openai_simultaneous_identical_chats_all_get_the_same_answer(real_client):
    with ThreadPoolExecutor(6) as pool:
        texts = [a.choices[0].message.content for a in pool.map(lambda _: _ask(real_client), range(6))]
    assert all("Paris" in text for text in texts)
    assert len(set(texts)) == 1


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "sure": {"type": "boolean"}},
    "required": ["city", "sure"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("stream", [False, True])
def test_openai_response_format_with_a_schema_gives_an_answer_of_that_schema(client, stream):
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    ask = {
        "model": MODEL,
        "messages": QUESTION,
        "temperature": 0,
        "response_format": form,
        "stream": stream,
        "max_tokens": 60,
    }
    answer = client.chat.completions.create(**ask)
    parts = [chunk.choices[0].delta.content or "" for chunk in answer] if stream else []
    found = json.loads("".join(parts) if stream else answer.choices[0].message.content)
    assert isinstance(found["city"], str)
    assert isinstance(found["sure"], bool)


def test_openai_response_format_json_object_gives_text_that_begins_with_a_brace(client):
    answer = _ask(client, response_format={"type": "json_object"}, seed=3)
    assert answer.choices[0].message.content.lstrip().startswith("{")


def test_openai_response_format_with_an_invalid_schema_is_a_bad_request(client):
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
    with pytest.raises(openai.BadRequestError, match="JSON schema"):
        _ask(client, response_format=form)


WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
        },
    },
}
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}


@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
def test_openai_forced_tool_call_is_the_same_with_and_without_streaming(client, choice):
    forced = {"tools": [WEATHER], "tool_choice": choice}
    (whole,) = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=60, **forced
    ).choices
    assert whole.finish_reason == "tool_calls"
    assert whole.message.content is None
    (call,) = whole.message.tool_calls
    arguments = json.loads(call.function.arguments)
    assert (call.function.name, set(arguments)) == ("get_weather", {"city", "unit"})
    with client.chat.completions.stream(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=60, **forced
    ) as stream:
        (streamed,) = stream.get_final_completion().choices
    assert streamed.finish_reason == "tool_calls"
    assert streamed.message.tool_calls[0].function.arguments == call.function.arguments


def test_openai_forced_tool_call_cut_off_by_the_token_limit_is_returned_as_text(client):
    (cut,) = client.chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=4, tools=[WEATHER], tool_choice="required"
    ).choices
    assert cut.finish_reason == "length"
    assert cut.message.content.startswith("{")
    assert not cut.message.tool_calls


@pytest.mark.parametrize(
    ("shown", "is_call"),
    [
        ('{"name": "get_weather", "arguments": {"city": "Oslo", "unit": "C"}}', True),
        ('{"answer": "It rains."}', False),
    ],
)
def test_openai_chat_with_tools_and_an_answer_schema_gets_a_call_or_the_answer(real_client, shown, is_call):
    """Agents with an output type ask so. The model could not call, and invented what the tool returns."""
    properties = {"answer": {"type": "string", "maxLength": 30}}
    schema: Any = {"type": "object", "properties": properties, "required": ["answer"]}
    answer_format: Any = {"type": "json_schema", "json_schema": {"name": "o", "schema": schema}}
    question: Any = {"role": "user", "content": "What is the weather in Oslo?"}
    turns = [question, {"role": "assistant", "content": shown}] * 3 + [question]
    (answer,) = real_client.chat.completions.create(
        model=MODEL,
        messages=turns,
        temperature=0,
        max_tokens=40,
        tools=[WEATHER],
        response_format=answer_format,
    ).choices
    assert answer.finish_reason == ("tool_calls" if is_call else "stop")
    if is_call:
        (call,) = answer.message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)["city"]) == ("get_weather", "Oslo")
    else:
        assert json.loads(answer.message.content) == {"answer": "It rains."}


def test_openai_chat_with_a_tool_result_is_answered(client):
    call = {"name": "get_weather", "arguments": '{"city": "Oslo", "unit": "C"}'}
    turns: Any = [
        {"role": "user", "content": "What is the weather in Oslo?"},
        {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": call}]},
        {"role": "tool", "tool_call_id": "c1", "content": "12 degrees and rain"},
    ]
    (answer,) = client.chat.completions.create(
        model=MODEL, messages=turns, tools=[WEATHER], temperature=0, max_tokens=24
    ).choices
    assert answer.message.content or answer.message.tool_calls


def test_openai_chat_with_three_choices_returns_varied_texts_that_streaming_reproduces(client):
    ask = {"model": MODEL, "messages": QUESTION, "n": 3, "temperature": 1.2, "seed": 1, "max_tokens": 8}
    whole = client.chat.completions.create(**ask)
    texts = [choice.message.content for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert len(set(texts)) > 1
    assert whole.usage.completion_tokens > whole.usage.prompt_tokens // 3
    streamed = ["", "", ""]
    for chunk in client.chat.completions.create(**ask, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


def test_openai_chat_logprobs_contain_the_sampled_and_the_most_likely_tokens(client):
    answer = _ask(client, logprobs=True, top_logprobs=3)
    rows = answer.choices[0].logprobs.content
    assert "".join(row.token for row in rows) == answer.choices[0].message.content
    for row in rows:
        assert row.top_logprobs[0].token == row.token  # greedy
        assert row.logprob == row.top_logprobs[0].logprob <= 0
        assert len(row.top_logprobs) == 3
        assert bytes(row.bytes).decode() == row.token


def test_openai_completions_of_several_prompts_return_text_and_logprobs(real_client):
    prompts = ["One, two, three,", "The capital of France is"]
    answer = real_client.completions.create(
        model=MODEL, prompt=prompts, max_tokens=6, temperature=0, logprobs=2
    )
    assert ["four" in answer.choices[0].text, "Paris" in answer.choices[1].text] == [True, True]
    assert len(answer.choices[1].logprobs.tokens) == len(answer.choices[1].logprobs.top_logprobs) > 0


def test_openai_completion_continues_the_prompt(real_client):
    answer = real_client.completions.create(
        model=MODEL, prompt="One, two, three,", max_tokens=6, temperature=0
    )
    assert "four" in answer.choices[0].text


@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}], ids=["base64", "float"])
def test_openai_embeddings_are_returned_as_base64_and_as_floats(client, encoding):
    answer = client.embeddings.create(model="all-minilm", input=["a", "b"], **encoding)
    assert [len(row.embedding) for row in answer.data] == [384, 384]
    assert answer.usage.prompt_tokens > 0


@pytest.mark.parametrize("encoding", ["base64", "float"])
def test_openai_embeddings_with_dimensions_are_shortened_unit_vectors(client, encoding):
    whole = client.embeddings.create(model="all-minilm", input="a").data[0].embedding
    short = client.embeddings.create(
        model="all-minilm", input="a", dimensions=64, encoding_format=encoding
    ).data[0]
    values = short.embedding
    if encoding == "base64":
        values = list(array("f", base64.b64decode(values)))
    assert math.isclose(math.hypot(*values), 1.0, abs_tol=1e-5)
    assert values[0] / whole[0] == pytest.approx(values[63] / whole[63], rel=1e-3)
    with pytest.raises(openai.BadRequestError, match="384"):
        client.embeddings.create(model="all-minilm", input="a", dimensions=1000)


def test_openai_models_are_listed_and_retrieved(client):
    assert MODEL in {model.id for model in client.models.list()}
    assert client.models.retrieve(MODEL).owned_by == "vestal"


def test_openai_client_raises_not_found_for_an_unknown_model_and_bad_request_for_an_embedder(client):
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nix", messages=QUESTION)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model="all-minilm", messages=QUESTION)
    assert wrong.value.code == "not_a_chat_model"


def test_openai_completion_of_token_ids_equals_the_completion_of_their_text(client, repo):
    from tokenizers import Tokenizer

    (file,) = (repo / ".cache" / "test-models").glob("smollm2*/tokenizer.json")
    prompt = "The capital of France is"
    ids = Tokenizer.from_file(str(file)).encode(prompt).ids
    asked: Any = {"model": MODEL, "temperature": 0, "max_tokens": 4, "seed": 1}
    of_text = client.completions.create(prompt=prompt, echo=True, **asked)
    of_ids = client.completions.create(prompt=ids, **asked)
    assert of_text.choices[0].text == prompt + of_ids.choices[0].text
    assert of_ids.usage.prompt_tokens == len(ids)
    several = client.completions.create(prompt=[ids, ids[:2]], stream=True, **asked)
    texts = ["", ""]
    for chunk in several:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts[0] == of_ids.choices[0].text


@pytest.mark.parametrize("wrong", [-1, 10**6, 2**70])
def test_openai_completion_of_an_invalid_token_id_is_a_bad_request(client, wrong):
    before = _ask(client).choices[0].message.content
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model=MODEL, prompt=[1, wrong], max_tokens=1)
    assert before and _ask(client).choices[0].message.content == before
