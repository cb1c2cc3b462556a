"""Models whose folders are damaged: a clear error names the fault, and the other models are served."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlx_server.model_store import layout
from tests.component.mlx_server.gateway.conftest import Gateway, make_model

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def broken(make_gateway) -> Gateway:
    """A gateway with two damaged models and two good ones, and what a process has left that was killed while
    it replaced another one.
    """
    gateway: Gateway = make_gateway()
    found: Path = gateway.home / "found"
    make_model(found / "cut", model_type="llama")
    os.truncate(found / "cut" / "model.safetensors", 70)
    make_model(found / "not-json", model_type="llama")
    (found / "not-json" / "config.json").write_text("{'model_type': 'llama'}")
    interrupted = gateway.home / "models" / ".changing-dead" / "replaced"
    make_model(interrupted, model_type="llama")
    layout.write_manifest(interrupted, "interrupted:latest", {"source": "hf:org/interrupted"})
    return gateway.start().until_ok()


@pytest.mark.parametrize(("model", "fault"), [("cut", "cut off"), ("not-json", "not JSON")])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {"messages": HELLO}),
        ("/api/generate", {"prompt": "hello"}),
        ("/api/embed", {"input": "hello"}),
        ("/api/show", {}),
        ("/v1/chat/completions", {"messages": HELLO}),
        ("/v1/embeddings", {"input": "hello"}),
        ("/v1/messages", {"messages": HELLO, "max_tokens": 5}),
    ],
)
def test_request_for_a_damaged_model_fails_with_500_and_names_the_fault(broken, path, body, model, fault):
    answer = broken.http.post(path, json={"model": model, **body})
    assert answer.status_code == 500
    error = answer.json()["error"] if path.startswith("/v1") else answer.json()
    assert error["code"] == "model_load_failed"
    assert fault in answer.text and model in answer.text


def test_delete_of_a_damaged_model_in_the_users_own_folder_is_refused(broken):
    answer = broken.http.request("DELETE", "/api/delete", json={"model": "cut"})
    assert answer.status_code == 400
    assert "not fetched by Vestal" in answer.json()["error"]


def test_intact_models_are_listed_and_served_although_others_are_damaged(broken):
    names = {model["name"] for model in broken.http.get("/api/tags").json()["models"]}
    assert names - {"interrupted:latest"} == {"chat:latest", "vectors:latest"}
    assert broken.http.post("/api/chat", json=broken.chat("tokens=1", stream=False)).status_code == 200


def test_model_too_large_for_memory_is_refused_with_507_and_without_retry_after(broken):
    answer = broken.http.post("/v1/chat/completions", json=broken.chat("fail=insufficient_memory"))
    assert answer.status_code == 507
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers


def test_model_whose_replacement_was_killed_midway_is_listed_after_the_start_of_a_gateway(broken):
    def names() -> set[str]:
        return {model["name"] for model in broken.http.get("/api/tags").json()["models"]}

    broken.until(lambda: "interrupted:latest" in names(), "the model is back")
    left = broken.home / "models" / ".changing-dead"
    broken.until(lambda: not left.exists(), "what the killed process left is deleted")
