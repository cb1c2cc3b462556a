"""What Ollama's answers say: which model is asked, how, and whether the answer is one."""

from __future__ import annotations

import pytest

from host_agent.services.http_probe import Reply
from host_agent.services.ollama.answers import (
    Loaded,
    Question,
    Verdict,
    chosen,
    light,
    loaded,
    question,
    takes_no_text,
    verdict,
)
from host_agent.services.ollama.probe_budget import ProbeBudget

GENERATE, EMBED = Question("/api/generate"), Question("/api/embed")
NOW = 1_800_000_000.0
BIG, SMALL = Loaded("qwen3:8b", 8_000, context_tokens=8192), Loaded("smollm2:135m", 400)


def test_light_answers_are_version_models_and_what_is_loaded():
    entry = {
        "name": "all-minilm:latest",
        "size": 46,
        "details": {"family": "bert"},
        "expires_at": "2026-09-03T10:00:00.123456789+02:00",
        "context_length": 256,
    }
    tags = Reply(200, {"models": [{"name": "all-minilm:latest"}]})
    found = light(Reply(200, {"version": "0.32.5"}), tags, Reply(200, {"models": [entry]}))
    assert (found.version, found.models, found.wrong) == ("0.32.5", ("all-minilm:latest",), "")
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
def test_light_answers_that_are_none_are_told(tags: Reply):
    found = light(Reply(200, {"version": "0.32.5"}), tags, Reply(404, None))
    assert str(tags.status) in found.wrong
    assert found.loaded == ()


def test_chosen_model_is_the_smallest_that_is_loaded_and_none_is_loaded_for_it():
    assert chosen((BIG, SMALL), None) is SMALL
    assert chosen((), None) is None
    assert chosen((BIG,), "all-minilm") == Loaded("all-minilm")
    assert chosen((BIG, Loaded("all-minilm:latest", 9)), "all-minilm") == Loaded("all-minilm:latest", 9)


def test_question_leaves_the_model_as_it_is_loaded():
    """Another context would load it anew, and the default keep-alive would keep it for ever."""
    body = question(Loaded("m", 1, context_tokens=2048, expires_at=NOW + 61.5), NOW).body
    assert (body["options"]["num_ctx"], body["options"]["num_predict"], body["keep_alive"]) == (
        2048,
        1,
        "62s",
    )
    assert question(Loaded("m", expires_at=NOW + 300 * 365 * 86400), NOW).body["keep_alive"] == -1
    assert question(Loaded("m", expires_at=NOW - 5), NOW).body["keep_alive"] == "1s"
    assert "keep_alive" not in question(Loaded("m"), NOW).body


def test_question_to_a_model_that_embeds_asks_for_a_vector():
    assert question(Loaded("all-minilm", embeds=True), NOW).path == "/api/embed"
    reply = Reply(400, {"error": '"all-minilm" does not support generate'})
    assert takes_no_text(reply)
    assert not takes_no_text(Reply(400, {"error": "invalid options"}))


@pytest.mark.parametrize(
    ("asked", "reply", "ok"),
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
def test_verdict_asks_that_an_answer_means_something(asked: Question, reply: Reply, ok: bool):
    found = verdict(asked, reply)
    assert (found.ok, found.busy) == (ok, False)
    assert ok or found.detail


def test_verdict_on_a_full_queue_is_busy():
    assert verdict(GENERATE, Reply(503, {"error": "server busy, please try again."})).busy


def test_loaded_models_are_none_where_the_answer_is_none():
    assert loaded(Reply(404, {"error": "404 page not found"})) == ()
    assert loaded(Reply(200, {"models": None})) == ()


def test_patience_asks_again_at_once_after_a_failure_and_else_at_its_interval():
    fresh = ProbeBudget(interval_s=30)
    assert fresh.due(0)
    assert not fresh.asked(0).due(100)
    well = fresh.asked(0).answered(Verdict(True), 1)
    assert not well.due(30)
    assert well.due(31)
    assert well.asked(31).answered(Verdict(False), 32).due(32)


@pytest.mark.parametrize(
    ("waited_s", "burns", "ok", "busy"),
    [
        (5, 0.0, True, True),  # it has time left
        (15, 0.0, False, False),
        (15, 0.5, True, True),  # a long prompt ahead of it
        (899, 0.02, True, True),  # a GPU's runner needs little of the CPU
        (901, 1.0, False, False),  # ollama/ollama 10516: 100 % for ever, and no token
    ],
)
def test_patience_with_silence_depends_on_whether_a_runner_works(
    waited_s: float, burns: float, ok: bool, busy: bool
):
    found = ProbeBudget().asked(0.0).without_answer(waited_s, burns)
    assert (found.ok, found.busy) == (ok, busy)
