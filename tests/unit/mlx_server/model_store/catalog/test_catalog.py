"""The catalog: which folders on disk are models, what is known of them, and what `ensure` and `remove` do."""

import json
import os
import struct

import pytest

from mlx_server.model_store import ModelStoreError, catalog, ensure, find, layout, remove, survey
from vestal.config import load


def write_model(folder, tensors=None, **config):
    """Create and return a folder that looks like a model; its weights are zeros."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llama", "max_position_embeddings": 100} | config)
    )
    header, at = {}, 0
    for name, (dtype, shape, size) in (tensors or {"w.weight": ("F16", [10, 100], 2000)}).items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(at))
    return folder


@pytest.fixture
def config_of(tmp_path):
    """Return a function that loads a configuration with the given `models:` and an empty home."""

    def make(models=None):
        settings = {"models": models or {}, "mlx": {"models_folder": str(tmp_path / "own")}}
        (tmp_path / "vestal.yaml").write_text(json.dumps(settings))
        return load({"VESTAL_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}, tmp_path)

    return make


def test_model_catalog_without_installed_models_is_empty(config_of):
    assert catalog(config_of()) == []


def test_model_catalog_lists_models_of_the_store_and_of_the_users_model_folder_and_of_configured_paths(
    config_of, tmp_path
):
    config = config_of({"here": {"source": "path:models/here"}, "big:8b": {"source": "hf:org/big"}})
    write_model(tmp_path / "models" / "here")
    write_model(layout.installed_path(config.models_dir, "big:8b"))
    write_model(tmp_path / "own" / "found__4b")
    entries = catalog(config)
    assert [entry.name for entry in entries] == ["big:8b", "found:4b", "here:latest"]
    here = find(config, "here")
    assert here is not None
    assert (here.kind, here.parameter_size, here.quantization) == ("generate", "0.00M", "F16")
    assert here.weights_bytes == 2000
    assert here.context_tokens == 100
    assert len(here.digest) == 64


@pytest.mark.parametrize("file", ["chat_template.jinja", "tokenizer_config.json", "more/tool.jinja"])
def test_models_of_the_same_weights_share_memory_only_with_the_same_tokenizer_and_template(
    config_of, tmp_path, file
):
    """A linked copy with a chat template of its own once got the template of the model loaded first."""
    own = tmp_path / "own"
    first = write_model(own / "first")
    for name in ("twin", "other"):
        (own / name).mkdir()
        for path in first.iterdir():
            os.link(path, own / name / path.name)
    changed = own / "other" / file
    changed.parent.mkdir(exist_ok=True)
    changed.write_text("{}")
    ids = {entry.name: entry.weights_id for entry in catalog(config_of())}
    assert ids["first:latest"] == ids["twin:latest"] != ids["other:latest"]


def test_model_catalog_lists_the_hub_snapshot_folder_that_a_manifest_names(config_of, tmp_path):
    config = config_of({"hub": {"source": "hf:org/model"}})
    snapshot = write_model(tmp_path / "cache" / "snapshot")
    with layout.locked_staging_folder(config.models_dir) as staging:
        (staging / "model").mkdir()
        layout.move_into_store(staging / "model", config.models_dir, "hub:latest", {"path": str(snapshot)})
    entry = find(config, "hub")
    assert entry is not None
    assert entry.path == snapshot


@pytest.mark.parametrize("damage", ["config", "header", "cut", "odd values"])
def test_model_catalog_omits_and_logs_a_broken_model(config_of, tmp_path, caplog, damage):
    config = config_of()
    write_model(tmp_path / "own" / "fine")
    broken = write_model(tmp_path / "own" / "broken")
    if damage == "config":
        (broken / "config.json").write_text("{")
    elif damage == "odd values":
        (broken / "config.json").write_text('{"quantization": {"bits": 4, "group_size": []}}')
    else:
        weights = broken / "model.safetensors"
        weights.write_bytes(b"\xff" * 20 if damage == "header" else weights.read_bytes()[:-1])
    assert [entry.name for entry in catalog(config)] == ["fine:latest"]
    assert "broken" in caplog.text


def test_model_catalog_counts_the_parameters_of_packed_quantized_weights(config_of, tmp_path):
    tensors = {
        "w.weight": ("U32", [1000, 128], 512_000),
        "w.scales": ("F16", [1000, 16], 32_000),
        "w.biases": ("F16", [1000, 16], 32_000),
        "norm.weight": ("F16", [1000], 2000),
    }
    write_model(tmp_path / "own" / "q", tensors, quantization={"group_size": 64, "bits": 4})
    (entry,) = catalog(config_of())
    assert (entry.parameter_size, entry.quantization) == ("1.02M", "Q4")


def test_model_catalog_limits_the_configured_context_to_the_models_own(config_of, tmp_path):
    write_model(tmp_path / "m")
    for asked, got in ((50, 50), (5000, 100)):
        (entry,) = catalog(config_of({"m": {"source": f"path:{tmp_path / 'm'}", "context_tokens": asked}}))
        assert entry.context_tokens == got


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({"model_type": "gpt2", "n_positions": 1024, "n_ctx": 2048}, 1024),  # its table has 1,024 rows
        ({"model_type": "gpt2", "n_positions": 512, "max_position_embeddings": 4096}, 512),
        ({"model_type": "gptj", "n_positions": 2048}, 2048),
        ({"model_type": "llama", "n_ctx": 300}, 300),
        ({"model_type": "llava", "text_config": {"model_type": "qwen2", "n_positions": 700}}, 700),
        ({"model_type": "gemma3", "text_config": {"hidden_size": 2560}}, 131072),  # as Google published it
        ({"model_type": "gemma3", "text_config": {"max_position_embeddings": 32768}}, 32768),
        ({"model_type": "llama", "max_position_embeddings": "many"}, 4096),
    ],
)
def test_model_catalog_reads_the_context_length_from_each_known_key_or_else_uses_the_familys_default(
    config_of, tmp_path, config, tokens
):
    """GPT-2 once got 4,096 positions, and Gemma 3 4,096 of its 131,072 tokens."""
    folder = write_model(tmp_path / "own" / "m")
    (folder / "config.json").write_text(json.dumps(config))
    (entry,) = catalog(config_of())
    assert entry.context_tokens == tokens


def test_model_catalog_takes_the_context_of_an_embedder_from_its_sentence_configuration(config_of, tmp_path):
    folder = write_model(tmp_path / "own" / "e", model_type="bert")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 64}')
    (entry,) = catalog(config_of())
    assert (entry.kind, entry.context_tokens) == ("embed", 64)


def test_embedding_model_that_cannot_be_served_is_listed_as_broken_with_the_reason(config_of, tmp_path):
    write_model(tmp_path / "own" / "no-tokenizer", model_type="bert")
    write_model(tmp_path / "own" / "unknown", model_type="mpnet")
    entries, broken = survey(config_of())
    assert not entries
    reasons = {each.name: each.reason for each in broken}
    assert reasons["no-tokenizer:latest"].endswith("it has no tokenizer.json")
    assert reasons["unknown:latest"].endswith("its architecture mpnet is not supported for embeddings")


def test_digest_of_an_embedding_model_changes_with_its_pooling(config_of, tmp_path):
    config = config_of()
    folder = write_model(tmp_path / "own" / "e", model_type="bert")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "1_Pooling").mkdir()
    digests = set()
    for mode in ("pooling_mode_cls_token", "pooling_mode_mean_tokens"):
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({mode: True}))
        digests.add(catalog(config)[0].digest)
    assert len(digests) == 2


def test_digest_of_a_model_changes_with_its_tokenizer(config_of, tmp_path):
    config = config_of()
    folder = write_model(tmp_path / "own" / "m")
    first = catalog(config)[0].digest
    (folder / "tokenizer.json").write_text("{}")
    assert catalog(config)[0].digest != first


def test_ensure_of_a_model_with_a_path_source_downloads_nothing(config_of, tmp_path):
    write_model(tmp_path / "m")
    config = config_of({"m": {"source": f"path:{tmp_path / 'm'}"}})
    assert [entry.path for entry in ensure(config, ["m"])] == [tmp_path / "m"]
    assert not config.models_dir.exists()


@pytest.mark.parametrize(
    ("name", "code"), [("absent", "model_not_found"), ("empty", "not_a_model"), ("nobody", "model_not_found")]
)
def test_ensure_of_an_unavailable_model_raises_an_error_that_names_the_model_and_has_a_code_and_a_remedy(
    config_of, tmp_path, name, code
):
    (tmp_path / "empty").mkdir()
    config = config_of({n: {"source": f"path:{tmp_path / n}"} for n in ("absent", "empty")})
    with pytest.raises(ModelStoreError) as caught:
        ensure(config, [name])
    assert caught.value.code == code
    assert name in caught.value.message
    assert caught.value.remedy


def test_remove_deletes_a_downloaded_model_but_not_a_folder_of_the_user(config_of, tmp_path):
    write_model(tmp_path / "m")
    config = config_of({"m": {"source": f"path:{tmp_path / 'm'}"}, "s": {"source": "hf:org/s"}})
    write_model(layout.installed_path(config.models_dir, "s:latest"))
    assert remove(config, "s") is True
    assert remove(config, "s") is False
    assert remove(config, "m") is False
    assert [entry.name for entry in catalog(config)] == ["m:latest"]
