"""Test Ollama's own JavaScript package, from npm, against the real server."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clients.npm_packages import fetched
from tests.waiting import looks

pytestmark = pytest.mark.model

MODEL = "smollm2:135m"
HERE = Path(__file__).parent / "npm"
Ask = Callable[[str], Any]


@pytest.fixture(scope="session")
def scenarios(repo: Path) -> Path:
    """Return the scenarios, next to the package that they import."""
    folder = fetched(HERE / "package-lock.json", repo / ".cache" / "npm", "node")
    return Path(shutil.copy(HERE / "scenarios.mjs", folder))


@pytest.fixture
def ask(server: Any, scenarios: Path) -> Ask:
    """Return a function that plays a scenario on the server with the small chat model."""
    return lambda scenario: _played(scenario, scenarios, server)


@pytest.fixture
def ask_real(real_server: Any, scenarios: Path) -> Ask:
    """Return a function that plays a scenario on the server with the real chat model."""
    return lambda scenario: _played(scenario, scenarios, real_server)


def _played(scenario: str, scenarios: Path, server: Any) -> Any:
    command = ["node", str(scenarios), server.url, scenario]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_ollama_npm_chat_gives_the_same_text_and_positive_counts_with_and_without_streaming(
    ask_real: Ask,
) -> None:
    answer = ask_real("chat")
    assert "Paris" in answer["text"] == answer["whole"]["message"]["content"]
    for last in (answer["last"], answer["whole"]):
        assert (last["done"], last["done_reason"]) == (True, "stop")
        assert min(last["prompt_eval_count"], last["eval_count"], last["total_duration"]) > 0
        assert datetime.fromisoformat(last["created_at"]).tzinfo


def test_ollama_npm_generate_gives_the_same_text_with_and_without_streaming(ask_real: Ask) -> None:
    answer = ask_real("generate")
    assert "Paris" in answer["text"] == answer["whole"]["response"]


def test_ollama_npm_embed_returns_a_vector_for_each_text(ask: Ask) -> None:
    assert [len(row) for row in ask("embed")["embeddings"]] == [384, 384]


def test_ollama_npm_models_are_listed_shown_and_reported_as_running(ask: Ask) -> None:
    answer = ask("models")
    assert {model["name"] for model in answer["list"]["models"]} >= {MODEL, "all-minilm:latest"}
    assert answer["show"]["model_info"]["general.architecture"] == "llama"
    assert answer["version"]["version"]
    (running,) = [model for model in answer["ps"]["models"] if model["name"] == MODEL]
    assert running["size"] > 0
    assert datetime.fromisoformat(running["expires_at"]) > datetime.now().astimezone()


def test_ollama_npm_chat_with_a_json_schema_gives_an_answer_of_that_schema(ask: Ask) -> None:
    answer = ask("format")
    assert isinstance(answer["capital"], str) and isinstance(answer["inhabitants"], int)


def test_ollama_npm_abort_ends_the_stream_and_cancels_the_request_on_the_server(
    ask: Ask, server: Any
) -> None:
    before = _cancelled(server)
    answer = ask("abort")
    assert answer["error"] == "AbortError"
    for _ in looks(30):
        if _cancelled(server) == before + 1:
            break
    assert _cancelled(server) == before + 1, "the server finishes a request that was aborted"


def _cancelled(server: Any) -> float:
    """Return how many requests of Ollama's API the server has counted as cancelled."""
    lines = httpx.get(f"{server.url}/metrics", timeout=30).text.splitlines()
    labels = ('dialect="ollama"', 'outcome="cancelled"')
    counts = [line for line in lines if line.startswith("vestal_requests_total{")]
    return sum(float(line.split()[-1]) for line in counts if all(label in line for label in labels))


def test_ollama_npm_client_errors_contain_the_servers_http_status_and_message(ask: Ask) -> None:
    missing, wrong_kind = ask("errors")
    assert (missing["status"], MODEL in missing["error"]) == (404, True)
    assert (wrong_kind["status"], "embeddings" in wrong_kind["error"]) == (400, True)


def test_ollama_npm_pull_of_an_installed_model_ends_with_success(ask: Ask) -> None:
    assert ask("pull") == {"status": "success"}


def test_ollama_npm_stop_unloads_an_embedding_model(ask: Ask) -> None:
    answer = ask("stop")
    assert (answer["done"], answer["done_reason"]) == (True, "unload")
