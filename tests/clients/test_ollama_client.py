"""Test Ollama's own client package against the real server."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import ollama
import pytest

pytestmark = pytest.mark.model

MODEL = "smollm2:135m"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY = {"temperature": 0, "num_predict": 24}
DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


@pytest.fixture(scope="module")
def client(server) -> Iterator[ollama.Client]:
    client = ollama.Client(host=server.url)
    yield client
    client._client.close()


@pytest.fixture(scope="module")
def real_client(real_server) -> Iterator[ollama.Client]:
    client = ollama.Client(host=real_server.url)
    yield client
    client._client.close()


def test_ollama_chat_gives_the_same_text_and_token_count_with_and_without_streaming(real_client):
    whole = real_client.chat(MODEL, QUESTION, options=GREEDY)
    assert "Paris" in whole.message.content
    assert all(whole[name] > 0 for name in (*DURATIONS, "prompt_eval_count", "eval_count"))
    *pieces, last = real_client.chat(MODEL, QUESTION, options=GREEDY, stream=True)
    assert "".join(piece.message.content for piece in pieces) == whole.message.content
    assert (last.done, last.done_reason, last.eval_count) == (True, "stop", whole.eval_count)


def test_ollama_generate_with_the_same_seed_gives_the_same_text(client):
    options = {"seed": 7, "temperature": 1.0, "num_predict": 16}
    first, second = (client.generate(MODEL, "Once upon a time", options=options) for _ in range(2))
    assert first.response
    assert first.response == second.response
    assert first.done_reason == "length"


def test_ollama_stream_whose_engine_is_killed_equals_the_uninterrupted_text(client, server):
    story = [{"role": "user", "content": "Tell me a story about a lighthouse."}]
    options = {"temperature": 0, "num_predict": 32}
    whole = client.chat(MODEL, story, options=options).message.content
    server.kill_engine_after(tokens=9)
    pieces = list(client.chat(MODEL, story, options=options, stream=True))
    assert server.engine_was_killed
    assert "".join(piece.message.content for piece in pieces) == whole


SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 30},
        "words": {"type": "array", "items": {"type": "string", "maxLength": 8}, "minItems": 3, "maxItems": 5},
    },
    "required": ["title", "words"],
}


def test_ollama_stream_in_a_json_format_whose_engine_is_killed_equals_the_uninterrupted_json(client, server):
    story = [{"role": "user", "content": "Outline a story about a lighthouse."}]
    options = {"temperature": 0.9, "seed": 5, "num_predict": 120}
    whole = client.chat(MODEL, story, format=SCHEMA, options=options).message.content
    assert len(json.loads(whole)["words"]) >= 3
    server.kill_engine_after(tokens=7)
    pieces = list(client.chat(MODEL, story, format=SCHEMA, options=options, stream=True))
    assert server.engine_was_killed
    assert "".join(piece.message.content for piece in pieces) == whole


def test_ollama_chat_with_think_is_a_bad_request_if_the_model_does_not_support_it(real_client):
    with pytest.raises(ollama.ResponseError, match="does not support thinking") as caught:
        real_client.chat(MODEL, QUESTION, think=True)
    assert caught.value.status_code == 400
    assert "Paris" in real_client.chat(MODEL, QUESTION, think=False, options=GREEDY).message.content


def get_weather(city: str) -> str:
    """Tells the weather in a city.

    Args:
        city: the city's name
    """
    return f"rain in {city}"


def test_ollama_tool_calls_have_their_arguments_as_objects(real_client):
    content = (
        "Repeat this and nothing else: "
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    )
    turns = [{"role": "user", "content": content}]
    answer = real_client.chat(MODEL, turns, tools=[get_weather], options=GREEDY | {"num_predict": 60})
    if calls := answer.message.tool_calls:  # a model of this size may or may not call the tool
        assert isinstance(calls[0].function.arguments, dict)
    else:
        assert answer.message.content


def test_ollama_chat_with_logprobs_returns_a_logprob_for_each_token_of_the_text(client):
    whole = client.chat(MODEL, QUESTION, options=GREEDY, logprobs=True, top_logprobs=2)
    assert "".join(row.token for row in whole.logprobs) == whole.message.content
    assert all(len(row.top_logprobs) == 2 for row in whole.logprobs)


def test_ollama_embed_returns_unit_vectors_that_are_close_for_similar_texts(client):
    texts = ["a cat sits on the mat", "a kitten lies on the rug", "the price of copper fell"]
    cat, kitten, copper = client.embed("all-minilm", texts).embeddings
    assert len(cat) == 384
    assert math.isclose(math.hypot(*cat), 1.0, abs_tol=1e-3)
    assert _cosine(cat, kitten) > _cosine(cat, copper) + 0.2
    assert client.embeddings("all-minilm", texts[0]).embedding == pytest.approx(cat, abs=1e-4)


def _cosine(one, other) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_ollama_models_are_listed_shown_and_reported_as_running(client):
    assert {model.model for model in client.list().models} >= {MODEL, "all-minilm:latest"}
    shown = client.show(MODEL)
    assert shown.modelinfo
    assert "messages" in shown.template
    assert shown.capabilities == ["completion", "tools"]
    assert {model.model for model in client.ps().models} >= {MODEL}


def test_ollama_chat_with_an_unknown_model_is_an_error_that_lists_the_installed_models(client):
    with pytest.raises(ollama.ResponseError) as caught:
        client.chat("nix", QUESTION)
    assert caught.value.status_code == 404
    assert MODEL in caught.value.error


def test_ollama_pull_of_an_installed_model_ends_with_success(client):
    *_, last = client.pull(MODEL, stream=True)
    assert last.status == "success"


async def test_ollama_async_client_streams_the_whole_answer(real_server):
    client = ollama.AsyncClient(host=real_server.url)
    async with client._client:
        parts = [part async for part in await client.chat(MODEL, QUESTION, options=GREEDY, stream=True)]
    assert "Paris" in "".join(part.message.content or "" for part in parts)


def test_ollama_models_can_be_created_copied_shown_and_deleted(real_client):
    """Open WebUI's model builder and `ollama create` send this. A request's parameter
    overrides the model's.
    """
    name, copy = "real_client-mario", "real_client-twin"
    try:
        *_, last = real_client.create(
            name,
            from_=MODEL,
            system="Answer with the word Mario.",
            messages=[{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Mario"}],
            parameters={"temperature": 0, "num_predict": 3},
            stream=True,
        )
        assert last.status == "success"
        real_client.copy(name, copy)
        shown = real_client.show(copy)
        assert shown.details.parent_model == MODEL
        assert "num_predict" in shown.parameters
        assert shown.modelinfo["llama.block_count"] == 30
        answers = [real_client.chat(each, [{"role": "user", "content": "Who?"}]) for each in (name, copy)]
        assert "Mario" in answers[0].message.content
        assert answers[0].message.content == answers[1].message.content
        assert real_client.chat(name, QUESTION, options={"num_predict": 1}).eval_count == 1
        assert {model.model for model in real_client.list().models} >= {f"{name}:latest", f"{copy}:latest"}
        with pytest.raises(ollama.ResponseError, match="Choose another name"):
            real_client.create(MODEL, from_=name, system="x")
    finally:
        for each in (name, copy):
            real_client.delete(each)
    with pytest.raises(ollama.ResponseError, match="not found"):
        real_client.show(name)
