"""What Ollama's answers say, and which probe a model gets."""

from __future__ import annotations

import pytest

from host_agent.services.http_probe import Reply
from host_agent.services.ollama.answers import (
    ModelInMemory,
    ModelRequest,
    choose_probe_model,
    judge,
    probe_request,
    read_loaded_models,
    read_server_info,
    says_embeddings_only,
)

GENERATE, EMBED = ModelRequest("/api/generate"), ModelRequest("/api/embed")
NOW = 1_800_000_000.0
BIG, SMALL = ModelInMemory("qwen3:8b", 8_000, context_tokens=8192), ModelInMemory("smollm2:135m", 400)


def test_ollama_server_info_contains_the_version_and_the_installed_and_loaded_models():
    entry = {
        "name": "all-minilm:latest",
        "size": 46,
        "details": {"family": "bert"},
        "expires_at": "2026-09-03T10:00:00.123456789+02:00",
        "context_length": 256,
    }
    tags = Reply(200, {"models": [{"name": "all-minilm:latest"}]})
    found = read_server_info(Reply(200, {"version": "0.32.5"}), tags, Reply(200, {"models": [entry]}))
    assert (found.version, found.models, found.error) == ("0.32.5", ("all-minilm:latest",), "")
    (model,) = found.loaded
    assert (model.name, model.size_bytes, model.embeds, model.context_tokens) == (
        "all-minilm:latest",
        46,
        True,
        256,
    )
    assert int(model.expires_at) == 1788422400


@pytest.mark.parametrize(
    "tags", [Reply(500, {"error": "reentrancy"}), Reply(200, {"models": None}), Reply(200, None)]
)
def test_ollama_server_info_of_an_error_answer_has_its_http_status(tags: Reply):
    found = read_server_info(Reply(200, {"version": "0.32.5"}), tags, Reply(404, None))
    assert str(tags.status) in found.error
    assert found.loaded == ()


def test_ollama_probe_model_is_the_configured_one_or_else_the_smallest_loaded():
    assert choose_probe_model((BIG, SMALL), None) is SMALL
    assert choose_probe_model((), None) is None
    assert choose_probe_model((BIG,), "all-minilm") == ModelInMemory("all-minilm")
    assert choose_probe_model((BIG, ModelInMemory("all-minilm:latest", 9)), "all-minilm") == ModelInMemory(
        "all-minilm:latest", 9
    )


def test_ollama_probe_request_repeats_the_models_context_size_and_names_no_keep_alive():
    """Another context size would reload the model. Ollama applies a request's keep-alive to later requests
    that have none: when probes named the remaining time, models were unloaded in mid-conversation.
    """
    for expires_at in (NOW + 61.5, NOW - 5, NOW + 290 * 365 * 86400, 0.0):
        body = probe_request(ModelInMemory("m", 1, context_tokens=2048, expires_at=expires_at)).body
        assert (body["options"]["num_ctx"], body["options"]["num_predict"]) == (2048, 1)
        assert "keep_alive" not in body
    assert "keep_alive" not in probe_request(ModelInMemory("m", embeds=True, expires_at=NOW + 9)).body


def test_ollama_probe_request_to_an_embedding_model_asks_for_a_vector():
    assert probe_request(ModelInMemory("all-minilm", embeds=True)).path == "/api/embed"
    reply = Reply(400, {"error": '"all-minilm" does not support generate'})
    assert says_embeddings_only(reply)
    assert not says_embeddings_only(Reply(400, {"error": "invalid options"}))


@pytest.mark.parametrize(
    ("request_sent", "reply", "ok"),
    [
        (GENERATE, Reply(200, {"response": " four"}), True),
        (GENERATE, Reply(200, {"response": "", "thinking": "hm"}), True),
        (GENERATE, Reply(200, {"response": "", "done": True}), False),  # ollama/ollama 18213
        (GENERATE, Reply(500, {"error": "llama runner process has terminated: exit status 2"}), False),
        (GENERATE, Reply(404, {"error": "model 'm' not found"}), False),
        (EMBED, Reply(200, {"embeddings": [[0.1, -0.2]]}), True),
        (EMBED, Reply(200, {"embeddings": [[0.0, 0.0]]}), False),
        (EMBED, Reply(200, {"embeddings": [[0.1, float("nan")]]}), False),
        (EMBED, Reply(200, {"embeddings": [[None, 0.1]]}), False),
        (EMBED, Reply(200, {"embeddings": []}), False),
        (EMBED, Reply(200, None), False),
    ],
)
def test_ollama_probe_succeeds_only_with_a_text_or_a_vector(
    request_sent: ModelRequest, reply: Reply, ok: bool
):
    found = judge(request_sent, reply)
    assert (found.ok, found.busy) == (ok, False)
    assert ok or found.detail


def test_ollama_probe_refused_by_a_full_queue_counts_as_busy():
    assert judge(GENERATE, Reply(503, {"error": "server busy, please try again."})).busy


def test_ollama_answer_without_a_list_of_models_is_read_as_no_loaded_models():
    assert read_loaded_models(Reply(404, {"error": "404 page not found"})) == ()
    assert read_loaded_models(Reply(200, {"models": None})) == ()
