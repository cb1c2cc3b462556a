"""`vestal models import-from-ollama` on a small store of Ollama, with the real converter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlx_server.model_store import find
from tests.services.in_process import vestal
from tests.unit.mlx_server.model_store.ollama_store.ollama_files import TEMPLATE, OllamaStore
from tests.waiting import looks
from vestal.config import load

TRIES = 5
COMMAND = (sys.executable, "-m", "host_agent.cli.main", "models", "import-from-ollama")


@pytest.fixture(scope="module")
def ollama(tmp_path_factory):
    store = OllamaStore(tmp_path_factory.mktemp("ollama") / "models")
    weights = store.weights()
    layers = {"model": weights, "template": TEMPLATE.encode(), "params": b'{"temperature": 0.5}'}
    store.add("tiny:1b", layers)
    store.add("me/pirate:latest", layers | {"system": b"You are a pirate."})
    store.add("broken:1", {"model": weights.replace(b"llama", b"rwkv6", 1)})
    store.add("deaf:1", {"model": weights.replace("Ģ".encode(), "ģ".encode(), 1)})
    return store


def run(home: Path, ollama: OllamaStore, *arguments: str) -> subprocess.CompletedProcess[str]:
    shown = ("models", "import-from-ollama", "--store", str(ollama.path), *arguments)
    result = vestal(shown, os.environ | {"VESTAL_HOME": str(home)})
    assert "Traceback" not in result.stderr + result.stdout, result.stderr
    return result


def listed(home: Path, ollama: OllamaStore) -> dict[str, dict[str, Any]]:
    models = json.loads(run(home, ollama, "--dry-run", "--json").stdout)["models"]
    return {each["name"]: each for each in models}


def test_import_from_ollama_lists_models_and_imports_each_once_with_its_ollama_parameters(
    tmp_path, ollama, monkeypatch
):
    before = {path: path.stat().st_mtime_ns for path in ollama.path.rglob("*")}
    said = run(tmp_path, ollama)
    assert said.returncode == 0
    assert "no: its architecture is 'rwkv6'; Vestal converts" in said.stdout
    assert "3 of 4 can be imported" in said.stdout
    assert not (tmp_path / "models").exists() or not any((tmp_path / "models").glob("[a-z]*"))

    done = run(tmp_path, ollama, "--all")
    assert done.returncode == 1  # one of them has a tokenizer that does not give back every text
    assert (
        "the source of model deaf:1, could not be converted: its tokenizer cannot be rebuilt" in done.stderr
    )
    monkeypatch.setenv("VESTAL_HOME", str(tmp_path))
    config = load()
    plain, pirate = find(config, "tiny:1b"), find(config, "me/pirate")
    assert plain is not None
    assert pirate is not None
    assert plain.preset.parameters == {"temperature": 0.5}
    assert (plain.preset.system, pirate.preset.system) == ("", "You are a pirate.")
    assert plain.preset.template_source == TEMPLATE
    assert (plain.path / "model.safetensors").samefile(pirate.path / "model.safetensors")
    assert not list((tmp_path / "models").glob(".staging*"))
    assert {path: path.stat().st_mtime_ns for path in ollama.path.rglob("*")} == before

    again = run(tmp_path, ollama, "tiny:1b")
    assert (again.returncode, "It is imported already." in again.stdout) == (0, True)
    shown = listed(tmp_path, ollama)
    assert shown["me/pirate:latest"]["state"] == "installed"
    assert shown["tiny:1b"]["needed_bytes"] == plain.weights_bytes


def test_import_from_ollama_that_is_interrupted_leaves_no_model_and_prints_one_sentence(tmp_path, ollama):
    code, stderr = 0, ""
    for number in range(TRIES):
        home = tmp_path / str(number)
        home.mkdir()
        code, stderr = interrupted(home, ollama)
        if code != 0:
            break
    assert code == 130
    assert stderr.count("\n") == 1
    assert "Interrupted." in stderr
    assert not [path for path in (home / "models").iterdir() if path.name != ".lock"]


def interrupted(home: Path, ollama: OllamaStore) -> tuple[int, str]:
    """Import a model, interrupt that in the middle, and return the exit code and what was printed to stderr.
    On a busy machine, the import may be over before the signal comes; its exit code is then 0.
    """
    with subprocess.Popen(
        (*COMMAND, "--store", str(ollama.path), "tiny:1b"),
        env=os.environ | {"VESTAL_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for _ in looks(within_s=60):
            if list((home / "models").glob(".staging*")) or process.poll() is not None:
                break
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    return process.returncode, stderr


def test_import_from_ollama_of_an_unsupported_or_unknown_model_is_refused_with_the_reason(tmp_path, ollama):
    refused = run(tmp_path, ollama, "broken:1")
    assert refused.returncode == 1
    assert refused.stderr.startswith(
        "vestal: Model broken:1 of Ollama cannot be imported: its architecture is"
    )
    unknown = run(tmp_path, ollama, "other")
    assert unknown.returncode != 0
    assert "Ollama has no model other:latest" in unknown.stderr
