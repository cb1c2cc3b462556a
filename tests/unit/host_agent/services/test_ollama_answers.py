"""What Ollama's answers say, and which probe a model gets."""

from __future__ import annotations

import pytest

from host_agent.services.http_probe import Reply
from host_agent.services.ollama.answers import (
    ModelInMemory,
    ModelProbeResult,
    ModelRequest,
    choose_probe_model,
    judge,
    probe_request,
    read_loaded_models,
    read_server_info,
    says_embeddings_only,
)
from host_agent.services.ollama.probe_budget import ProbeBudget

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


def test_ollama_probe_request_changes_neither_context_size_nor_unload_time_of_the_model():
    """Another context size would reload the model, and the default keep-alive would change its
    unload time.
    """
    body = probe_request(ModelInMemory("m", 1, context_tokens=2048, expires_at=NOW + 61.5), NOW).body
    assert (body["options"]["num_ctx"], body["options"]["num_predict"], body["keep_alive"]) == (
        2048,
        1,
        "62s",
    )
    assert probe_request(ModelInMemory("m", expires_at=NOW + 300 * 365 * 86400), NOW).body["keep_alive"] == -1
    assert probe_request(ModelInMemory("m", expires_at=NOW - 5), NOW).body["keep_alive"] == "1s"
    assert "keep_alive" not in probe_request(ModelInMemory("m"), NOW).body


def test_ollama_probe_request_to_an_embedding_model_asks_for_a_vector():
    assert probe_request(ModelInMemory("all-minilm", embeds=True), NOW).path == "/api/embed"
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


def test_ollama_probe_is_due_at_once_after_a_failure_and_otherwise_after_its_interval():
    fresh = ProbeBudget(interval_s=30)
    assert fresh.is_due(0)
    assert not fresh.asked(0).is_due(100)
    after_success = fresh.asked(0).answered(ModelProbeResult(True), 1)
    assert not after_success.is_due(30)
    assert after_success.is_due(31)
    assert after_success.asked(31).answered(ModelProbeResult(False), 32).is_due(32)


def test_silence_of_ollama_is_measured_from_the_first_unanswered_probe_and_ends_with_an_answer():
    """Otherwise a model that never answers would count as busy for another 15 minutes after each failure."""
    given_up = ProbeBudget().asked(0).given_up()
    assert given_up.is_due(100)
    again = given_up.asked(100)
    assert (again.waited_s(110), again.silent_s(110)) == (10, 110)
    assert again.answered(ModelProbeResult(False), 111).asked(112).silent_s(115) == 3
