"""Presets of models: settings of the client come first, in each API's spelling; the preset fills the rest."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from mlx_server.gateway.dialects.anthropic.schema import MessagesBody
from mlx_server.gateway.dialects.ollama import schema as ollama
from mlx_server.gateway.dialects.openai import schema as openai
from mlx_server.gateway.requests.model_presets import with_preset
from mlx_server.gateway.requests.model_requests import (
    EmbeddingRequest,
    GenerationRequest,
    LoadRequest,
    UnloadRequest,
)
from mlx_server.model_store import ModelEntry, Preset

USER = {"role": "user", "content": "Hi"}
EXAMPLE = {"role": "assistant", "content": "It's-a me!"}
PARAMETERS = {
    **{"temperature": 0.1, "top_k": 7, "seed": 5, "num_predict": 9, "num_ctx": 512, "stop": ["END"]},
    **{"repeat_penalty": 1.3, "repeat_last_n": -1, "num_gpu": 99, "top_p": 0.5},
}
PRESET = Preset("base", "You are Mario.", "{{ messages }}", PARAMETERS, (EXAMPLE,))


def entry(preset: Preset = PRESET) -> ModelEntry:
    files = ("mario:latest", Path("x"), "generate", 1, 1, 0.0, "mlx", "llama", "", "", 10)
    return ModelEntry(*files, digest="d", weights_name="base:latest", preset=preset)  # type: ignore[arg-type]


def ollama_chat(**fields):
    body = ollama.ChatBody.model_validate({"model": "mario", "messages": [USER]} | fields)
    return body, body.to_request("mario:latest", 1)


def openai_chat(**fields):
    body = openai.ChatBody.model_validate({"model": "mario", "messages": [USER]} | fields)
    return body, body.to_requests("mario:latest", 1)[0]


def anthropic(**fields):
    given = {"model": "mario", "messages": [USER], "max_tokens": 3} | fields
    body = MessagesBody.model_validate(given)
    return body, body.to_request("mario:latest", 1)


@pytest.mark.parametrize("dialect", [ollama_chat, openai_chat, anthropic])
def test_request_in_any_api_dialect_gets_the_settings_of_the_models_preset(dialect):
    request = with_preset(entry(), *dialect())
    assert request.model == "base:latest"
    assert request.messages is not None
    assert [each["content"] for each in request.messages] == ["You are Mario.", "It's-a me!", "Hi"]
    assert request.chat_template == "{{ messages }}"
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_k, sampling.seed, sampling.top_p) == (0.1, 7, 5, 0.5)
    assert (sampling.repeat_penalty, sampling.repeat_last_tokens) == (1.3, 2**31 - 1)
    assert request.max_tokens == (3 if dialect is anthropic else 9)
    assert (request.context_tokens, request.stop) == (512, ("END",))


@pytest.mark.parametrize(
    ("dialect", "fields"),
    [
        (ollama_chat, {"options": {"temperature": 0.7, "num_predict": 4, "stop": "X", "seed": 2}}),
        (openai_chat, {"temperature": 0.7, "max_completion_tokens": 4, "stop": "X", "seed": 2}),
        (anthropic, {"temperature": 0.7, "max_tokens": 4, "stop_sequences": ["X"]}),
    ],
)
def test_settings_of_the_client_override_the_models_preset(dialect, fields):
    request = with_preset(entry(), *dialect(**fields))
    assert (request.sampling.temperature, request.max_tokens, request.stop) == (0.7, 4, ("X",))
    assert request.sampling.top_k == 7


def test_system_prompt_of_the_client_replaces_the_preset_system_prompt():
    system = {"role": "system", "content": "Be short."}
    request = with_preset(entry(), *ollama_chat(messages=[system, USER]))
    assert request.messages == (system, EXAMPLE, USER)


def test_raw_text_request_gets_only_the_parameters_of_the_preset():
    body = ollama.GenerateBody.model_validate({"model": "mario", "prompt": "Once", "raw": True})
    request = with_preset(entry(), body, body.to_request("mario:latest", 1))
    assert (request.prompt, request.messages, request.chat_template) == ("Once", None, None)
    assert request.sampling.temperature == 0.1


@pytest.mark.parametrize("value", [None, "warm", [], True, {}, math.nan, math.inf, 2**70])
def test_model_preset_parameter_of_a_wrong_type_is_ignored(value):
    names = ("temperature", "top_k", "num_ctx", "num_predict", "repeat_last_n", "seed", "logit_bias")
    damaged = Preset("base", parameters=dict.fromkeys(names, value))
    body, request = ollama_chat()
    assert with_preset(entry(damaged), body, request) == with_preset(entry(Preset()), body, request)


def test_request_of_a_model_without_a_preset_is_unchanged():
    files = ("base:latest", Path("x"), "generate", 1, 1, 0.0, "mlx", "llama", "", "", 10)
    plain = ModelEntry(*files, digest="d")  # type: ignore[arg-type]
    body, request = ollama_chat()
    assert with_preset(plain, body, request) == GenerationRequest(**vars(request) | {"model": "base:latest"})


def test_load_or_embedding_for_a_model_with_a_preset_is_sent_with_the_name_of_its_base_model():
    body, _ = ollama_chat()
    assert with_preset(entry(), body, LoadRequest("mario:latest")).model == "base:latest"
    assert with_preset(entry(), body, EmbeddingRequest("mario:latest", ("x",))).model == "base:latest"


@pytest.mark.parametrize("stop", [5, True, {"a": 1}, [5, ""]])
def test_stop_of_a_preset_that_is_no_text_is_ignored(stop):
    """A manifest that was edited by hand once made each request for its model fail."""
    preset = Preset("base", "", "", {"stop": stop}, ())
    assert with_preset(entry(preset), *openai_chat()).stop == ()


def test_request_for_a_model_with_shared_weights_also_names_the_model_that_the_client_asked_for():
    """The engine needs this name if the model under which it loads the weights is deleted meanwhile."""
    body, request = ollama_chat()
    made = entry()
    for each in (request, EmbeddingRequest("mario:latest", ("x",)), LoadRequest("mario:latest")):
        named = with_preset(made, body, each)
        assert (named.model, named.requested_model) == ("base:latest", "mario:latest")
        operation: Any = named.operation()
        assert operation.requested_model == "mario:latest"
    assert with_preset(made, body, UnloadRequest("mario:latest")) == UnloadRequest("base:latest")
    own = dataclasses.replace(made, weights_name="")
    assert with_preset(own, body, request).requested_model == ""
