"""Adapters on disk: which models they become, and why a broken one is refused when models are listed."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from mlx_server.engine.models.weights.checks import check_before_use
from mlx_server.engine.models.weights.digest_file import DigestFile
from mlx_server.model_store import (
    ModelStoreError,
    Preset,
    ensure,
    find,
    layout,
    make,
    making,
    plans,
    remove,
    survey,
)
from mlx_server.model_store.adapters.tensors import short_name
from mlx_server.model_store.blobs import Blobs
from mlx_server.model_store.files.weight_files import UnreadableModel
from mlx_server.model_store.forecasts import METAL, THIS_MACHINE, files_of, forecast_of
from mlx_server.model_store.sources import hub_repository
from mlx_server.model_store.sources.hub_repository import HubFile
from mlx_server.model_store.sources.source import HubSource
from tests.models.adapter_folders import SHAPES, as_peft, write_adapter, write_base
from vestal.config import ConfigError, load


@pytest.fixture
def config_of(tmp_path):
    """Return a function that loads a configuration with `llama3`, which has the given adapters."""
    write_base(tmp_path / "base")

    def of(name="llama3", source=f"path:{tmp_path}/base", **adapters):
        settings = {"models": {name: {"source": source, "adapters": adapters}}}
        (tmp_path / "vestal.yaml").write_text(json.dumps(settings))
        return load({"VESTAL_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}, tmp_path)

    return of


def refused(config, name):
    """Return why model `name` is broken."""
    entries, broken = survey(config)
    assert name not in [entry.name for entry in entries]
    return next(each.reason for each in broken if each.name == name)


def test_configured_adapter_is_a_model_with_its_own_digest_and_its_base_models_weights(config_of, tmp_path):
    write_adapter(tmp_path / "pirate")
    config = config_of(pirate="path:pirate", plain=f"path:{write_adapter(tmp_path / 'plain', seed=3)}")
    base, pirate, plain = (find(config, name) for name in ("llama3", "llama3:pirate", "LLAMA3:Plain"))
    assert base and pirate and plain
    assert {base.weights_id} == {pirate.weights_id, plain.weights_id} != {""}
    assert len({base.digest, pirate.digest, plain.digest}) == 3
    assert pirate.preset.parent == "llama3:latest" and pirate.loaded_as == "llama3:pirate"
    assert pirate.capabilities == base.capabilities and pirate.context_tokens == base.context_tokens
    assert pirate.path == base.path and pirate.adapter and pirate.adapter.path == tmp_path / "pirate"
    assert pirate.weights_bytes - base.weights_bytes == pirate.adapter.weights_bytes > 0
    assert pirate.as_json()["adapter"]["rank"] == 4 and pirate.as_json()["parent"] == "llama3:latest"
    assert pirate.made_from == "llama3:latest + lora of rank 4"


def test_adapter_model_name_is_appended_to_the_tag_of_its_base_model(config_of, tmp_path):
    write_adapter(tmp_path / "pirate")
    config = config_of("smollm2:135m", pirate="path:pirate")
    assert find(config, "smollm2:135m-pirate")
    assert config.kv_quantization("smollm2:135m-pirate") is None


def test_configured_adapter_uses_the_kv_quantization_of_its_base_model(tmp_path):
    models = {"llama3": {"source": "path:base", "kv_bits": 8, "adapters": {"pirate": "path:a"}}}
    (tmp_path / "vestal.yaml").write_text(json.dumps({"models": models}))
    config = load({"VESTAL_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}, tmp_path)
    assert config.kv_quantization("llama3:pirate") == config.kv_quantization("llama3") != None  # noqa: E711


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        ({"a": {"source": "path:x", "adapters": {"s": "pypi:x==1"}}}, "not the source of an adapter"),
        ({"a": {"source": "path:x", "adapters": {"s": "hf:org/x#Q8_0"}}}, "not the source of an adapter"),
        ({"a": {"source": "path:x", "adapters": {"a b": "path:y"}}}, "a b"),
        ({"a": {"source": "path:x", "adapters": {"latest": "path:y"}}}, "is named like a"),
        (
            {"a": {"source": "path:x", "adapters": {"s": "path:y"}}, "a:s": {"source": "path:z"}},
            "an adapter of a:latest is named like a:s",
        ),
    ],
)
def test_adapter_configured_with_an_invalid_source_or_an_invalid_or_taken_name_is_refused(
    tmp_path, models, reason
):
    (tmp_path / "vestal.yaml").write_text(json.dumps({"models": models}))
    with pytest.raises(ConfigError, match=reason):
        load({"VESTAL_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}, tmp_path)


def edit(folder: Path, **changes: object) -> None:
    """Change the configuration of an adapter; `rank`, `scale` and `keys` are its LoRA parameters."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    for name, value in changes.items():
        part = config["lora_parameters"] if name in ("rank", "scale", "keys") else config
        part[name] = value
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fine_tune_type": "full"}, "fuse them into a model of their own"),
        ({"fine_tune_type": "odd"}, "fine_tune_type 'odd' is unknown: it must be lora or dora"),
        ({"lora_parameters": None}, "it has no lora_parameters"),
        ({"rank": 0}, "lora_parameters.rank must be a whole number from 1, and it is 0"),
        ({"rank": 8}, "lora_a has the rank 4, and the configuration says 8"),
        ({"scale": None}, "lora_parameters.scale must be a number.*scale, not alpha"),
        ({"keys": ["self_attn.q_proj", "attention.wq"]}, "keys name no layer of the model: attention.wq"),
        ({"keys": "q_proj"}, "keys must be a list"),
    ],
)
def test_adapter_with_unusable_settings_is_refused_when_models_are_listed(
    config_of, tmp_path, changes, reason
):
    edit(write_adapter(tmp_path / "a"), **changes)
    config = config_of(a="path:a")
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(refused(config, "llama3:a"))
    assert find(config, "llama3"), "the base is served"


def test_adapter_with_missing_files_is_refused_when_models_are_listed(config_of, tmp_path):
    config = config_of(a="path:a")
    assert "there is no such folder" in refused(config, "llama3:a")
    write_adapter(tmp_path / "a")
    assert find(config, "llama3:a")
    (tmp_path / "a" / "adapters.safetensors").rename(tmp_path / "kept")
    assert "adapters.safetensors: it is missing" in refused(config, "llama3:a")
    (tmp_path / "a" / "adapters.safetensors").write_bytes((tmp_path / "kept").read_bytes()[:-1])
    assert "cut off" in refused(config, "llama3:a")
    (tmp_path / "a" / "adapter_config.json").unlink()
    assert "it holds the rank and the scale" in refused(config, "llama3:a")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[" * 100_000, "not JSON"),
        ("[]", "not a JSON object"),
        (" " * 2_000_000, "it has 2000000 bytes"),
        ('{"lora_parameters": {"rank": 1e400, "scale": 1}}', "rank must be a whole number"),
        ('{"lora_parameters": {"rank": 4, "scale": NaN}}', "scale must be a number"),
        ('{"fine_tune_type": ["lora"], "lora_parameters": {}}', "is unknown"),
        ('{"peft_type": null, "r": 4}', "PEFT's None is not applied"),
    ],
)
def test_adapter_with_a_damaged_configuration_is_refused_when_models_are_listed(
    config_of, tmp_path, content, reason
):
    (write_adapter(tmp_path / "a") / "adapter_config.json").write_text(content)
    assert reason in refused(config_of(a="path:a"), "llama3:a")


def test_adapter_trained_on_another_model_is_refused_when_models_are_listed(config_of, tmp_path):
    other = {"self_attn.q_proj": (64, 96), "mlp.down_proj": (64, 128)}
    write_adapter(tmp_path / "a", shapes=other)
    write_adapter(tmp_path / "deep", count=9)
    write_adapter(tmp_path / "half")
    tensors = load_file(tmp_path / "half" / "adapters.safetensors")
    kept = {name: values for name, values in tensors.items() if not name.endswith("q_proj.lora_b")}
    save_file(kept, tmp_path / "half" / "adapters.safetensors")
    config = config_of(a="path:a", deep="path:deep", half="path:half")
    assert "lora_a has the shape [96, 4], and the model needs [64, 4]" in refused(config, "llama3:a")
    assert "the model has no layer model.layers.7." in refused(config, "llama3:deep")
    assert "q_proj has no lora_b" in refused(config, "llama3:half")


def test_adapter_is_checked_again_when_its_base_model_is_upgraded(config_of, tmp_path):
    write_adapter(tmp_path / "a")
    config = config_of(a="path:a")
    before = find(config, "llama3:a")
    shutil.rmtree(tmp_path / "base")
    write_base(tmp_path / "base", seed=2, rope_theta=5000)
    after = find(config, "llama3:a")
    assert before and after and before.digest != after.digest and before.weights_id != after.weights_id
    weights = load_file(tmp_path / "base" / "model.safetensors")
    weights["model.layers.2.mlp.down_proj.weight"] = weights["model.layers.2.mlp.down_proj.weight"][
        :, :100
    ].copy()
    save_file(weights, tmp_path / "base" / "model.safetensors")
    assert "the model needs [100, 4]" in refused(config, "llama3:a")


def test_adapter_of_a_broken_base_model_is_broken_and_of_a_missing_one_is_not_listed(config_of, tmp_path):
    write_adapter(tmp_path / "a")
    config = config_of(a="path:a")
    (tmp_path / "base" / "config.json").write_text("{")
    assert "its base llama3:latest is broken" in refused(config, "llama3:a")
    shutil.rmtree(tmp_path / "base")
    assert survey(config) == ([], [])


@pytest.mark.parametrize(
    ("layer", "short"),
    [
        ("language_model.model.layers.3.mlp.up_proj", "layers.3.mlp.up_proj"),
        ("layers.12.self_attn.q_proj", "layers.12.self_attn.q_proj"),
        ("model.h.0.attn.c_attn", "h.0.attn.c_attn"),
        ("model.layers.1.mlp.experts.7.gate_proj", "layers.1.mlp.experts.7.gate_proj"),
        ("model.embed_tokens", "embed_tokens"),
        ("lm_head", "lm_head"),
    ],
)
def test_short_name_of_a_layer_omits_the_module_path_before_its_block(layer, short):
    assert short_name(layer) == short


def test_adapters_of_the_same_shape_have_different_digests(config_of, tmp_path):
    write_adapter(tmp_path / "a", seed=5)
    write_adapter(tmp_path / "b", seed=6)
    config = config_of(a="path:a", b="path:b")
    a, b = find(config, "llama3:a"), find(config, "llama3:b")
    assert a and b and a.bytes == b.bytes and a.digest != b.digest


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"peft_type": "IA3"}, "PEFT's IA3 is not applied here"),
        ({"modules_to_save": ["lm_head"]}, r"whole trained layers \(modules_to_save\)"),
        ({"bias": "all"}, r"trained biases \(bias\)"),
        ({"rank_pattern": {"q_proj": 2}}, "different ranks"),
        ({"r": "8"}, "r must be a whole number"),
    ],
)
def test_peft_adapter_with_an_unsupported_setting_is_refused_with_the_reason(
    config_of, tmp_path, setting, reason
):
    folder = as_peft(write_adapter(tmp_path / "a"), tmp_path / "peft")
    edit(folder, **setting)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(refused(config_of(p="path:peft"), "llama3:p"))


def test_peft_adapter_gets_its_scale_from_alpha_and_rank(config_of, tmp_path):
    folder = as_peft(write_adapter(tmp_path / "a", rank=4, scale=8.0), tmp_path / "peft")
    entry = find(config_of(p="path:peft"), "llama3:p")
    assert entry and entry.adapter and entry.adapter.settings.scale == 8.0
    edit(folder, use_rslora=True)
    entry = find(config_of(p="path:peft"), "llama3:p")
    assert entry and entry.adapter and entry.adapter.settings.scale == 16.0


def test_memory_forecast_counts_the_adapter_in_addition_to_its_base_model(config_of, tmp_path):
    write_adapter(tmp_path / "a")
    config = config_of(a="path:a")
    base, adapted = find(config, "llama3"), find(config, "llama3:a")
    assert base and adapted and adapted.adapter
    for machine in (METAL, THIS_MACHINE):
        one, two = (
            forecast_of(entry, files_of(entry), machine, step_tokens=128, kv=None)
            for entry in (base, adapted)
        )
        assert two.shared_bytes == one.resident_bytes == one.shared_bytes
        assert two.resident_bytes - one.resident_bytes == adapted.adapter.weights_bytes  # float32 in both


# --- made models ---


def upload(config, folder: Path) -> dict[str, str]:
    """Upload an adapter's files; return their digests by their names."""
    digests: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        digests[path.name] = f"sha256:{hashlib.sha256(content).hexdigest()}"
        one = Blobs(config.models_dir).upload(digests[path.name])
        one.write(content)
        one.finish()
    return digests


@pytest.mark.parametrize("form", ["mlx-lm", "peft", "model.safetensors"])
def test_created_model_with_an_uploaded_adapter_shares_the_weights_of_its_base_model(
    config_of, tmp_path, form
):
    config, adapter = config_of(), write_adapter(tmp_path / "a")
    if form == "peft":
        adapter = as_peft(adapter, tmp_path / "peft")
    elif form == "model.safetensors":  # Ollama's command sends only files of such names from a folder
        (adapter / "adapters.safetensors").rename(adapter / form)
    base = find(config, "llama3")
    assert base
    make(config, "mario", base, Preset(parent=base.name, system="You are Mario."), upload(config, adapter))
    mario = find(config, "mario")
    assert mario and mario.adapter and mario.weights_id == base.weights_id
    assert mario.loaded_as == "mario:latest" and mario.preset.parent == "llama3:latest"
    assert mario.preset.system == "You are Mario."
    assert mario.adapter.path == layout.installed_path(config.models_dir, "mario:latest") / "adapter"
    assert not list((config.models_dir / ".blobs").glob("sha256-*")), "the uploads are deleted"
    list(check_before_use(mario.adapter.path, DigestFile()))
    mario.adapter.weights_file.write_bytes(mario.adapter.weights_file.read_bytes()[:-1] + b"\1")
    with pytest.raises(UnreadableModel, match="it has changed since it was installed"):
        list(check_before_use(mario.adapter.path, DigestFile()))


def test_model_created_from_uploaded_files_may_have_an_adapter(config_of, tmp_path):
    config = config_of()
    files = upload(config, tmp_path / "base")
    making.make_of_files(config, "whole", files, Preset(), upload(config, write_adapter(tmp_path / "a")))
    whole = find(config, "whole")
    assert whole and whole.adapter and whole.path.parent == config.models_dir


@pytest.mark.parametrize("configured", [True, False])
def test_model_derived_from_an_adapter_model_is_loaded_as_that_adapter_model(config_of, tmp_path, configured):
    write_adapter(tmp_path / "a")
    config = config_of(**({"pirate": "path:a"} if configured else {}))
    if not configured:
        base = find(config, "llama3")
        assert base
        make(config, "llama3:pirate", base, Preset(parent=base.name), upload(config, tmp_path / "a"))
    pirate = find(config, "llama3:pirate")
    assert pirate
    make(config, "polite", pirate, Preset(parent=pirate.name, system="Be polite."))
    polite = find(config, "polite")
    assert polite and polite.loaded_as == "llama3:pirate" and polite.adapter
    if not configured:
        remove(config, "llama3:pirate")
        polite = find(config, "polite")
        assert polite and polite.loaded_as == "polite:latest" and polite.adapter
        list(check_before_use(polite.adapter.path, DigestFile()))


def test_model_creation_with_a_second_adapter_or_an_incomplete_upload_or_a_gguf_adapter_is_refused(
    config_of, tmp_path
):
    adapter = write_adapter(tmp_path / "a")
    config = config_of(pirate="path:a")
    base, pirate = find(config, "llama3"), find(config, "llama3:pirate")
    assert base and pirate
    files = upload(config, adapter)
    with pytest.raises(ModelStoreError, match="has an adapter already"):
        make(config, "two", pirate, Preset(), files)
    for wrong, reason in (
        ({"adapters.safetensors": files["adapters.safetensors"]}, "adapter_config.json and one safetensors"),
        ({"a.gguf": files["adapters.safetensors"]}, "GGUF or PyTorch files are not read"),
        ({"adapter_config.json": files["adapter_config.json"]}, "one safetensors file are needed"),
    ):
        with pytest.raises(ModelStoreError, match=reason) as error:
            make(config, "two", base, Preset(), wrong)
        assert error.value.code == "not_an_adapter"
    assert find(config, "two") is None
    with pytest.raises(ModelStoreError, match="it is in the configuration"):
        make(config, "llama3:pirate", base, Preset(), files)


def test_uploaded_adapter_trained_on_another_model_is_refused(config_of, tmp_path):
    config = config_of()
    base = find(config, "llama3")
    assert base
    files = upload(config, write_adapter(tmp_path / "a", shapes=SHAPES | {"self_attn.q_proj": (64, 96)}))
    with pytest.raises(ModelStoreError, match=r"the upload/adapters.safetensors: .* train it on this model"):
        make(config, "two", base, Preset(), files)


# --- fetching ---


def test_ensure_of_a_hub_adapter_downloads_base_model_and_adapter(config_of, tmp_path, monkeypatch):
    asked = []

    def fetch(name, source, step):
        asked.append((name, source.repo, source.adapter))
        return write_adapter(tmp_path / "cache" / "snapshot")

    monkeypatch.setattr("mlx_server.model_store.sources.hub.fetch", fetch)
    config = config_of(pirate="hf:org/pirate")
    assert find(config, "llama3:pirate") is None and not survey(config)[1], "it is not fetched"
    (entry,) = plans.pull(config, ["llama3:pirate"])
    assert entry.adapter and entry.adapter.path == tmp_path / "cache" / "snapshot"
    ensure(config, ["llama3:pirate"])
    assert asked == [("llama3:pirate", "org/pirate", True)]
    assert remove(config, "llama3:pirate") and find(config, "llama3:pirate") is None
    assert find(config, "llama3")


def test_download_of_a_hub_adapter_fetches_only_the_adapter_files_of_its_repository():
    """Training leaves checkpoints beside the adapter, and some repositories hold the fused model too."""
    names = ("adapter_config.json", "adapters.safetensors", "0000100_adapters.safetensors", "train.py")
    files = [HubFile(name, 1) for name in (*names, "model.safetensors", "config.json")]
    found = hub_repository.wanted("a", HubSource("org/a", adapter=True), files)
    assert [file.name for file in found] == ["adapter_config.json", "adapters.safetensors"]


def test_ensure_of_a_broken_adapter_raises_the_reason(config_of):
    with pytest.raises(ModelStoreError, match="there is no such folder") as error:
        ensure(config_of(pirate="path:nowhere"), ["llama3:pirate"])
    assert error.value.code == "not_an_adapter"
