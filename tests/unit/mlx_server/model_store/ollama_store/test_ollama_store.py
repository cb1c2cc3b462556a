"""Ollama's store: which of its models can be imported, and what becomes of their templates and parameters."""

from __future__ import annotations

import json

import pytest

from mlx_server.engine.generation.prompts.templates.renderer import make_environment
from mlx_server.model_store import ModelStoreError
from mlx_server.model_store.ollama_store import candidates, manifests
from mlx_server.model_store.ollama_store.preset_of import preset_of
from tests.unit.mlx_server.model_store.ollama_store.ollama_files import TEMPLATE, OllamaStore
from vestal.config import load


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return OllamaStore(tmp_path_factory.mktemp("weights") / "s").weights()


@pytest.fixture
def ollama(tmp_path):
    return OllamaStore(tmp_path / "ollama")


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("VESTAL_HOME", str(tmp_path / "home"))
    return load()


def states(config, ollama):
    return {each.model.name: (each.state, each.reason) for each in candidates.candidates(config, ollama.path)}


def test_models_in_ollamas_store_are_named_as_ollama_lists_them(config, ollama, weights):
    layers = {"model": weights}
    ollama.add("llama3.2:3b", layers)
    ollama.add("me/mine:latest", layers)
    ollama.add("org/model-GGUF:Q4_K_M", layers, host="hf.co")
    (ollama.path / "manifests" / "registry.ollama.ai" / ".DS_Store").write_text("x")
    assert list(states(config, ollama)) == ["hf.co/org/model-GGUF:Q4_K_M", "llama3.2:3b", "me/mine:latest"]
    assert candidates.find_candidate(config, ollama.path, "org/model-gguf:q4_k_m").state == "convertible"


def test_family_quantization_and_size_of_a_model_in_ollamas_store_come_from_its_weights_header(
    config, ollama, weights
):
    ollama.add("tiny:1b", {"model": weights, "template": TEMPLATE.encode()})
    found = candidates.find_candidate(config, ollama.path, "tiny:1b")
    assert (found.family, found.quantization, found.state) == ("llama", "F32", "convertible")
    assert found.needed_bytes == found.parameters * 4 > 0
    assert found.model.bytes == len(weights) + len(TEMPLATE)


def test_each_model_in_ollamas_store_that_cannot_be_imported_is_listed_with_the_reason(
    config, ollama, weights
):
    ollama.add("cut:1", {"model": weights + b"0"})
    blob = max((ollama.path / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    blob.write_bytes(weights[:-1000])
    ollama.add("rwkv:1", {"model": weights.replace(b"llama", b"rwkv6", 1)})
    ollama.add("lora:1", {"model": weights, "adapter": b"x"})
    ollama.add("cloud:1", {}, {"remote_host": "https://ollama.com:443"})
    ollama.add("text:1", {"model": b"x" * 99})
    gone = ollama.add("gone:1", {"model": b"y" * 99})
    (ollama.path / "blobs" / json.loads(gone.read_text())["layers"][0]["digest"].replace(":", "-")).unlink()
    reasons = {name: reason for name, (state, reason) in states(config, ollama).items() if state == "refused"}
    assert "bytes" in reasons["cut:1"]
    assert reasons["rwkv:1"].startswith("its architecture is 'rwkv6'; Vestal converts llama, qwen2")
    assert "adapter" in reasons["lora:1"]
    assert reasons["cloud:1"] == "it runs on https://ollama.com:443, and not on this machine"
    assert reasons["text:1"] == "it is not a GGUF file"
    assert "cannot be read (No such file or directory)" in reasons["gone:1"]


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b"\xff\xfe",
        b"x" * (manifests.MAX_MANIFEST_BYTES + 1),
        json.dumps(
            {"config": {"digest": "sha256:../../etc", "mediaType": "", "size": 1}, "layers": []}
        ).encode(),
        json.dumps({"config": None, "layers": [{}]}).encode(),
        json.dumps({"config": {}, "layers": 5}).encode(),
    ],
    ids=["empty", "list", "object", "nested", "binary", "huge", "path", "no config", "no layers"],
)
def test_damaged_manifest_in_ollamas_store_refuses_only_its_own_model(config, ollama, weights, manifest):
    ollama.add("good:1", {"model": weights})
    ollama.add("bad:1", {"model": weights}).write_bytes(manifest)
    found = states(config, ollama)
    assert found["good:1"][0] == "convertible"
    assert found["bad:1"][0] == "refused"
    assert "cannot be read" in found["bad:1"][1]


def test_missing_ollama_store_or_model_is_reported_in_a_sentence_with_the_remedy(config, ollama, tmp_path):
    with pytest.raises(ModelStoreError, match="no store of Ollama at .*nowhere.* --store DIR"):
        candidates.candidates(config, tmp_path / "nowhere")
    with pytest.raises(ModelStoreError, match="has no model llama3:latest in .*; there are none"):
        candidates.find_candidate(config, ollama.path, "llama3")


def test_import_from_ollama_under_the_name_of_another_model_is_refused(
    config, ollama, weights, tmp_path, monkeypatch
):
    ollama.add("mine:1", {"model": weights})
    folder = config.models_dir / "mine__1"
    folder.mkdir(parents=True)
    (folder / "vestal-model.json").write_text(json.dumps({"name": "mine:1", "source": "hf:org/mine"}))
    assert (
        "installed (hf:org/mine); remove it first: vestal models rm mine:1"
        in states(config, ollama)["mine:1"][1]
    )
    (config.home.root / "vestal.yaml").write_text("models: {'mine:1': {source: 'path:/x'}}")
    assert "it is in the configuration" in states(load(), ollama)["mine:1"][1]


def preset(ollama, layers, own_template="", about=None):
    path = ollama.add("m:1", {"model": b"x", **layers}, about)
    return preset_of(manifests.read_model(ollama.path, path), own_template=own_template)


def test_model_imported_from_ollama_has_its_template_prompt_parameters_messages_and_licenses(ollama):
    params = {"stop": ["<|im_end|>"], "temperature": 0.5, "num_ctx": 4096, "odd": {"a": 1}}
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}, {"role": 5}]
    made, notes = preset(
        ollama,
        {
            "template": TEMPLATE.encode(),
            "system": b"Be brief.",
            "params": json.dumps(params).encode(),
            "messages": json.dumps(messages).encode(),
            "license": b"MIT",
        },
    )
    assert notes == []
    assert made.system == "Be brief."
    assert made.parameters == {"stop": ["<|im_end|>"], "temperature": 0.5, "num_ctx": 4096}
    assert made.messages == tuple(messages[:2])
    assert made.licenses == ("MIT",)
    assert made.template_source == TEMPLATE
    asked = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    rendered = make_environment().from_string(made.template).render(messages=asked)
    assert rendered == "<|im_start|>s S<|im_start|>u U<|im_end|>"


def test_template_of_ollama_that_cannot_be_translated_is_omitted_with_a_note(ollama):
    layers = {"template": b"{{ call .Prompt }}"}
    made, notes = preset(ollama, layers, own_template="{{ messages }}")
    assert (made.template, made.template_source) == ("", "")
    assert "the template in its weights' file is used" in notes[0]
    assert "it cannot chat" in preset(ollama, layers)[1][0]


def test_trivial_template_of_ollama_does_not_replace_the_models_own_template(ollama):
    layers = {"template": b"{{ .Prompt }}"}
    assert preset(ollama, layers, own_template="{{ messages }}")[0].template == ""
    assert preset(ollama, layers)[0].template != ""


def test_model_imported_from_ollama_that_needs_ollamas_own_renderer_has_a_note_that_it_cannot_chat(ollama):
    notes = preset(ollama, {}, about={"renderer": "qwen3-coder"})[1]
    assert notes == ["Ollama's own program 'qwen3-coder' renders its prompts: it cannot chat here."]


def test_damaged_layer_in_ollamas_store_is_refused(ollama):
    with pytest.raises(ValueError, match="its layer params is not JSON"):
        preset(ollama, {"params": b"{"})
    with pytest.raises(ValueError, match="more than"):
        preset(ollama, {"system": b"x" * (manifests.MAX_TEXT_BYTES + 1)})


def test_ollamas_store_is_found_by_its_environment_variable_or_in_the_users_home(monkeypatch, tmp_path):
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "big"))
    assert manifests.default_store() == tmp_path / "big"
    monkeypatch.delenv("OLLAMA_MODELS")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ollama" / "models" / "manifests").mkdir(parents=True)
    assert manifests.default_store() == tmp_path / ".ollama" / "models"
