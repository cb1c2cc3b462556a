"""What is known of a model of the hub before its weights are downloaded."""

import json
import struct

import pytest

from mlx_server.model_store import ModelStoreError
from mlx_server.model_store.files import weight_files
from mlx_server.model_store.plans import read_hub_model
from mlx_server.model_store.sources import hub, hub_repository
from mlx_server.model_store.sources.hub_repository import HubFile, Repository
from mlx_server.model_store.sources.source import HubSource
from vestal.config import load

NAME, INDEX = "model.embed_tokens.weight", "model.safetensors.index.json"
SOURCE = HubSource("org/m")


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Return a function that plans the pull of a repository with these files, which are written as JSON."""
    remote = tmp_path / "remote"
    remote.mkdir()
    header = json.dumps({NAME: {"dtype": "F16", "shape": [8, 4], "data_offsets": [0, 64]}}).encode()
    weights = struct.pack("<Q", len(header)) + header + bytes(64)
    (remote / "model.safetensors").write_bytes(weights)

    def read(config, **more):
        for name, content in {"config.json": config, "tokenizer.json": {}, **more}.items():
            (remote / name).write_text(json.dumps(content))
        files = tuple(HubFile(path.name, path.stat().st_size) for path in remote.iterdir())
        monkeypatch.setattr(hub, "repository", lambda *_: Repository("org/m", "main", files))
        monkeypatch.setattr(hub_repository, "_content", lambda _, name: (remote / name).read_bytes())
        monkeypatch.setattr(
            hub_repository, "_tensors", lambda _, name: weight_files.read_header(remote / name)[1]
        )
        return read_hub_model(load({"VESTAL_HOME": str(tmp_path)}, tmp_path), "m", SOURCE)

    return read


LLAMA = {"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 4, "num_attention_heads": 1}


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (
            {"weight_map": {NAME: "model.safetensors", "lm_head.weight": "model-00002-of-00002.safetensors"}},
            "1 of 2 files are missing: model-00002-of-00002.safetensors.",
        ),
        (
            {"metadata": {"total_size": 999}, "weight_map": {NAME: "model.safetensors"}},
            "total_size says 999.",
        ),
    ],
    ids=["missing file", "wrong size"],
)
def test_repository_whose_index_contradicts_its_weights_is_refused_before_the_download(read, index, reason):
    """The index was read only afterwards, and gigabytes were downloaded in vain."""
    with pytest.raises(ModelStoreError) as caught:
        read(LLAMA, **{INDEX: index})
    assert caught.value.code == "not_a_model"
    assert caught.value.message.startswith("org/m, the source of model m, cannot be served: ")
    assert caught.value.message.endswith(reason)


def test_repository_with_a_right_index_is_planned(read):
    index = {"metadata": {"total_size": 64}, "weight_map": {NAME: "model.safetensors"}}
    assert read(LLAMA, **{INDEX: index}).entry.kind == "generate"


def test_repository_of_an_architecture_that_cannot_be_loaded_is_refused_before_the_download(read):
    with pytest.raises(ModelStoreError, match="its architecture t5 is not one that the installed mlx-lm can"):
        read({"model_type": "t5", "d_model": 512})


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "bert", "architectures": ["BertModel"]},
        {"model_type": "modernbert", "architectures": ["ModernBertModel"]},
        {"model_type": "xlm-roberta", "architectures": ["XLMRobertaForSequenceClassification"]}
        | {"id2label": {"0": "LABEL_0"}},
    ],
    ids=["bert", "modernbert", "reranker"],
)
def test_repository_of_an_embedder_or_reranker_is_planned_although_mlx_lm_has_no_such_model(read, config):
    assert read(config).entry.kind in ("embed", "rerank")
