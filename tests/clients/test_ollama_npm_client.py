"""Ollama's own package for JavaScript, from npm, against the real server and the real models."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.model

MODEL = "smollm2:135m"
HERE = Path(__file__).parent / "npm"
Ask = Callable[[str], Any]


@pytest.fixture(scope="session")
def scenarios(repo: Path) -> Path:
    """The scenarios beside the package that they import, fetched once for this checkout."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not there: Ollama's npm package is not tried")
    folder = repo / ".cache" / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    lock = (HERE / "package-lock.json").read_bytes()
    fetched = folder / "package-lock.json"
    there = fetched.exists() and (folder / "node_modules" / "ollama").exists()
    present = there and fetched.read_bytes() == lock
    for file in HERE.iterdir():
        shutil.copy(file, folder)
    if not present:
        _fetch(folder)
    return folder / "scenarios.mjs"


def _fetch(folder: Path) -> None:
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    if done.returncode:
        (folder / "package-lock.json").unlink()
        pytest.skip(f"npm could not fetch Ollama's package: {done.stderr.strip()[-300:]}")


@pytest.fixture
def ask(server: Any, scenarios: Path) -> Ask:
    def run(scenario: str) -> Any:
        command = ["node", str(scenarios), server.url, scenario]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_chat_streamed_equals_the_whole_text_and_ends_with_every_count(ask: Ask) -> None:
    told = ask("chat")
    assert "Paris" in told["text"] == told["whole"]["message"]["content"]
    for last in (told["last"], told["whole"]):
        assert (last["done"], last["done_reason"]) == (True, "stop")
        assert min(last["prompt_eval_count"], last["eval_count"], last["total_duration"]) > 0
        assert datetime.fromisoformat(last["created_at"]).tzinfo


def test_generate_streamed_equals_the_whole_text(ask: Ask) -> None:
    told = ask("generate")
    assert "Paris" in told["text"] == told["whole"]["response"]


def test_embed_returns_a_vector_for_each_text(ask: Ask) -> None:
    assert [len(row) for row in ask("embed")["embeddings"]] == [384, 384]


def test_models_are_listed_shown_and_reported_as_running(ask: Ask) -> None:
    told = ask("models")
    assert {model["name"] for model in told["list"]["models"]} >= {MODEL, "all-minilm:latest"}
    assert told["show"]["model_info"]["general.architecture"] == "llama"
    assert told["version"]["version"]
    (running,) = [model for model in told["ps"]["models"] if model["name"] == MODEL]
    assert running["size"] > 0
    assert datetime.fromisoformat(running["expires_at"]) > datetime.now().astimezone()


def test_format_with_a_schema_gives_an_answer_of_that_schema(ask: Ask) -> None:
    told = ask("format")
    assert isinstance(told["capital"], str) and isinstance(told["inhabitants"], int)


def test_abort_ends_the_stream_and_cancels_the_request(ask: Ask, server: Any) -> None:
    told = ask("abort")
    assert told["error"] == "AbortError"
    assert told["parts"] < 50
    deadline = time.monotonic() + 5
    while httpx.get(f"{server.url}/health").json()["requests"]["running"]:
        assert time.monotonic() < deadline, "the engine goes on with what nobody reads"
        time.sleep(0.05)


def test_errors_have_their_status_and_message(ask: Ask) -> None:
    missing, wrong_kind = ask("errors")
    assert (missing["status"], MODEL in missing["error"]) == (404, True)
    assert (wrong_kind["status"], "embeddings" in wrong_kind["error"]) == (400, True)


def test_pull_of_an_installed_model_ends_in_success(ask: Ask) -> None:
    assert ask("pull") == {"status": "success"}


def test_stop_unloads_an_embedding_model(ask: Ask) -> None:
    told = ask("stop")
    assert (told["done"], told["done_reason"]) == (True, "unload")
