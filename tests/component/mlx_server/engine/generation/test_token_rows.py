"""Models whose weights cover fewer tokens than their tokenizers: nothing is read beyond the weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

mx = pytest.importorskip("mlx.core")

import mlx.nn as nn  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402
from mlx_lm.models import gpt2, llama  # noqa: E402

from mlx_server.engine.embeddings.embedding_job import EmbeddingJob  # noqa: E402
from mlx_server.engine.embeddings.encoder import load_encoder  # noqa: E402
from mlx_server.engine.errors import RequestError  # noqa: E402
from mlx_server.engine.models.self_test import run_self_test  # noqa: E402
from mlx_server.engine.models.vocabulary import token_rows  # noqa: E402
from mlx_server.protocol import Done, Embed, Failed, Generate, Probe, Probed, Ready, Sampling  # noqa: E402
from tests.component.mlx_server.engine.conftest import Engine, engines_started  # noqa: E402

ROWS = 300
GREEDY = Sampling(temperature=0.0)
SHAPE: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "vocab_size": ROWS,
}  # fmt: skip


def tiny_llama() -> Any:
    mx.random.seed(1)  # other weights may end the answer with their first token
    return llama.Model(llama.ModelArgs(**SHAPE))


def test_embedding_row_count_of_a_model_is_not_changed_by_quantization():
    model = tiny_llama()
    assert token_rows(model) == ROWS
    nn.quantize(model, 64, 4)
    assert token_rows(model) == ROWS


def test_embedding_rows_do_not_include_position_embeddings():
    positions = gpt2.Model(
        gpt2.ModelArgs(
            model_type="gpt2", n_ctx=8, n_embd=32, n_head=2, n_layer=1, n_positions=8,
            layer_norm_epsilon=1e-5, vocab_size=ROWS, num_key_value_heads=2,
        )
    )  # fmt: skip
    assert token_rows(positions) == ROWS


def test_embedding_rows_are_none_for_a_model_without_token_embedding():
    assert token_rows(nn.Linear(2, 2)) is None


@pytest.fixture(scope="module")
def few_rows(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("models") / "few-rows"
    folder.mkdir()
    model = tiny_llama()
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    # Its end token is beyond the rows too.
    (folder / "config.json").write_text(json.dumps({**SHAPE, "eos_token_id": 49_000}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(models_dir / "smollm2__135m" / name, folder)
    with engines_started(models_dir, tmp_path_factory) as start:
        engine = start(VESTAL_MLX__MODELS_FOLDER=str(folder.parent), MLX_PRELOAD_MODELS="few-rows")
        assert engine.wait(lambda e: isinstance(e, Ready)).loaded == ("few-rows:latest",)
        yield engine


@pytest.mark.model
def test_engine_refuses_token_ids_beyond_the_embedding_rows_and_serves_valid_ids(few_rows):
    few_rows.send(
        Generate("ids", "few-rows", "text", prompt_ids=(5, ROWS), max_tokens=2),
        Generate("text", "few-rows", "text", prompt="A text of usual words", max_tokens=2),
        Generate("good", "few-rows", "text", prompt_ids=(5, ROWS - 1), max_tokens=2, sampling=GREEDY),
    )
    ids, text = few_rows.answer("ids", Done), few_rows.answer("text", Done)
    assert isinstance(ids, Failed) and f"its ids go from 0 to {ROWS - 1}" in ids.message
    assert isinstance(text, Failed) and f"weights for {ROWS} tokens only" in text.message
    assert ids.code == text.code == "invalid_request"
    assert few_rows.answer("good", Done).usage.completion_tokens == 2


@pytest.mark.model
def test_engine_probe_succeeds_if_the_models_end_token_is_beyond_the_embedding_rows(few_rows):
    few_rows.send(Probe("probe"))
    assert few_rows.answer("probe", Probed).ok


@pytest.fixture
def embedder(models_dir: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "embedder"
    shutil.copytree(models_dir / "all-minilm__latest", folder)
    return folder


def truncate(folder: Path, rows: int) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": rows}))
    path = folder / "model.safetensors"
    weights = mx.load(str(path))
    (name,) = (name for name in weights if name.endswith("word_embeddings.weight"))
    mx.save_safetensors(str(path), {**weights, name: weights[name][:rows]})


@pytest.mark.model
def test_embedder_refuses_a_text_with_a_token_beyond_its_embedding_rows(embedder):
    words = (embedder / "vocab.txt").read_text().splitlines()
    rows = 29_000  # of 30,522; "probe" and usual words are within
    beyond = next(word for word in words[rows:] if word.isascii() and word.isalpha())
    truncate(embedder, rows)
    encoder = load_encoder(embedder, 256)
    assert run_self_test([encoder])[0]
    assert EmbeddingJob(Embed("a", "m", ("usual words",)), encoder, 0.0, 0.0).tokenize_slice()
    job = EmbeddingJob(Embed("b", "m", ("usual words", beyond)), encoder, 0.0, 0.0)
    with pytest.raises(RequestError, match="weights for 29000 tokens only"):
        job.tokenize_slice()


@pytest.mark.model
@pytest.mark.parametrize("wrong", [{"vocab_size": 100}, {"type_vocab_size": 0}])
def test_embedder_without_rows_for_its_special_tokens_or_token_types_is_not_loaded(embedder, wrong):
    if rows := wrong.get("vocab_size"):
        truncate(embedder, rows)
    else:
        config = json.loads((embedder / "config.json").read_text())
        (embedder / "config.json").write_text(json.dumps(config | wrong))
    with pytest.raises((ValueError, RequestError), match="token"):
        load_encoder(embedder, 256)
