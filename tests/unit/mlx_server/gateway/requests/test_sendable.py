"""Requests are encoded before they are accepted: what cannot be sent is refused, and holds nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mlx_server import protocol
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.requests.model_requests import (
    EmbeddingRequest,
    GenerationRequest,
    LoadRequest,
    RerankRequest,
    UnloadRequest,
)
from mlx_server.gateway.requests.sendable import repeated, sendable
from mlx_server.gateway.requests.table.admission import Lane


def chat(**fields: Any) -> GenerationRequest:
    return GenerationRequest("m", "chat", messages=({"role": "user", "content": "hi"},), **fields)


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"json_schema": {"maximum": math.inf}},
            "the JSON schema of the answer, maximum: a number is over 1.8e308",
        ),
        ({"tools": ({"x": [math.nan]},)}, "tools.0.x.0: NaN is not a JSON number"),
        ({"template": {"x": -math.inf}}, "the variables for the chat template, x: a number is over 1.8e308"),
        ({"json_schema": nested(955)}, "the JSON schema of the answer: JSON nested deeper than 500 levels."),
        ({"tools": (nested(955),)}, "tools: JSON nested deeper than 500 levels."),
    ],
)
def test_request_that_cannot_be_encoded_is_refused_with_an_error_that_names_the_clients_field(
    fields, sentence
):
    with pytest.raises(BadRequest) as caught:
        sendable(chat(**fields))
    assert caught.value.message.startswith(sentence)
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")


def test_request_over_the_size_limit_of_a_frame_is_refused():
    with pytest.raises(BadRequest, match="limit"):
        sendable(GenerationRequest("m", "text", prompt="a" * protocol.MAX_FRAME_BYTES))


def test_frame_for_the_engine_has_the_request_id_the_seed_and_the_tokens_already_sent_to_the_client():
    request = sendable(chat(sampling=protocol.Sampling(seed=7), max_tokens=3))
    assert (request.model, request.lane) == ("m", Lane.GENERATE)
    sent = protocol.decode_op(request.frame("r1", [4, 5]))
    expected = chat(sampling=protocol.Sampling(seed=7), max_tokens=3).operation()
    assert isinstance(sent, protocol.Generate)
    assert isinstance(expected, protocol.Generate)
    assert (sent.id, sent.emitted, sent.sampling.seed, sent.max_tokens) == ("r1", (4, 5), 7, 3)
    assert sent.messages == expected.messages


@pytest.mark.parametrize("text", ["half a pair: \ud83d", "😀"])
def test_request_with_any_unicode_text_is_sent_to_the_engine_unchanged(text):
    request = sendable(GenerationRequest("m", "text", prompt=text))
    sent = protocol.decode_op(request.frame("r", [1, 2]))
    assert isinstance(sent, protocol.Generate)
    assert (sent.prompt, sent.emitted) == (text, (1, 2))


@pytest.mark.parametrize(
    ("request_", "operation"),
    [
        (EmbeddingRequest("m", ("a",), False, 3.0), protocol.Embed("r", "m", ("a",), False, 3.0)),
        (
            RerankRequest("m", "q", ("a",), "find", False, 7, True),
            protocol.Rerank("r", "m", "q", ("a",), "find", False, 7, True),
        ),
        (LoadRequest("m", -1.0), protocol.Load("r", "m", -1.0)),
        (LoadRequest("m", 60.0, 5.0, True), protocol.Load("r", "m", 60.0, 5.0, True)),
        (UnloadRequest("m"), protocol.Unload("r", "m")),
    ],
)
def test_request_that_generates_no_tokens_is_sent_to_an_engine_with_all_fields_unchanged(request_, operation):
    assert protocol.decode_op(sendable(request_).frame("r", [])) == operation


def test_several_answers_to_one_request_share_its_encoded_form_and_differ_in_seed():
    """128 answers to a prompt of 32 MB must not take 128 times the memory."""
    first, second = repeated([sendable(chat(sampling=protocol.Sampling(seed=2**63 - 1)))], 2)
    assert first._prepared is second._prepared
    seeds = [protocol.decode_op(each.frame("r", [])).sampling.seed for each in (first, second)]  # type: ignore[union-attr]
    assert seeds == [2**63 - 1, 0]
