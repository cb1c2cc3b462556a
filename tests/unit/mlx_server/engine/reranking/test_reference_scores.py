"""Scores of rerankers with random weights, compared with those of sentence-transformers and transformers,
which `tests/data/rerankers/record.py` has recorded.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlx_server.engine.embeddings.batches import MAX_BATCH_TOKENS
from mlx_server.engine.embeddings.encoder import padded
from mlx_server.engine.models.self_test import run_self_test
from mlx_server.engine.reranking.heads import HEADS
from mlx_server.engine.reranking.judge import _float32_logits, shared_tokens
from mlx_server.engine.reranking.loading import load_reranker
from mlx_server.engine.reranking.rerank_job import RerankJob
from mlx_server.model_store.files.model_folder import read_facts
from mlx_server.model_store.files.model_kind import RERANKING_ENCODERS
from mlx_server.protocol import Rerank
from tests.models.random_rerankers import DOCUMENTS, FAMILIES, QUERIES

RECORDED = json.loads(Path("tests/data/rerankers/scores.json").read_text())
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made: dict[str, Path] = {}

    def folder_of(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            FAMILIES[family](made[family])
        return made[family]

    return folder_of


def order(scores) -> list[int]:
    return sorted(range(len(scores)), key=lambda index: -scores[index])


@pytest.mark.parametrize("family", FAMILIES)
def test_reranker_scores_and_order_equal_the_recorded_reference(folders, family):
    folder = folders(family)
    facts = read_facts(folder)
    assert (facts.kind, facts.capabilities) == ("rerank", ("rerank",))
    reranker = load_reranker(folder, facts.context_tokens)
    for query, reference in zip(QUERIES, RECORDED[family], strict=True):
        job = RerankJob(Rerank("r", "m", query, DOCUMENTS), reranker, 0.0, 0.0)
        while not job.tokenize_slice():
            pass
        while not job.compute_batch(MAX_BATCH_TOKENS):
            pass
        scores = job.answer(1.0).scores
        assert scores == pytest.approx(reference, abs=TOLERANCE)
        assert order(scores) == order(reference)


def test_every_listed_cross_encoder_architecture_has_a_scoring_head():
    assert HEADS.keys() == RERANKING_ENCODERS


def test_self_test_of_a_reranker_fails_if_its_score_is_not_a_number(folders):
    reranker = load_reranker(folders("bert"), 72)
    assert run_self_test([reranker])[0]
    broken = replace(reranker, model=lambda ids, mask, types, lengths: lengths * float("nan"))
    assert run_self_test([broken]) == (False, "The score of a document is nan.")


@pytest.mark.parametrize("family", ["qwen3", "qwen3-classifier"])
def test_query_document_pairs_scored_in_one_batch_with_a_shared_beginning_score_the_same_as_alone(
    folders, family
):
    reranker = load_reranker(folders(family), 4096)
    pairs = reranker.tokenizer.pairs(QUERIES[0], [*DOCUMENTS, DOCUMENTS[0]], None)
    ids, _ = padded([pair.ids for pair in pairs])
    assert shared_tokens(ids, mx.array([len(pair.ids) for pair in pairs])) > 100
    together = reranker.logits(pairs)
    alone = [reranker.logits([pair])[0] for pair in pairs]
    assert together == pytest.approx(alone, abs=1e-4)
    assert reranker.logits([pairs[0]] * 2) == pytest.approx([alone[0]] * 2, abs=1e-4)


def test_shared_beginning_of_token_rows_is_shorter_than_the_shortest_row():
    ids = mx.array([[5, 6, 7, 0], [5, 6, 8, 9], [5, 6, 0, 0]])
    assert shared_tokens(ids, mx.array([3, 4, 2])) == 1
    assert shared_tokens(ids[:2], mx.array([3, 4])) == 2
    assert shared_tokens(mx.array([[1, 2], [3, 4]]), mx.array([2, 2])) == 0


def quantize(folder: Path) -> None:
    """Quantize every matrix of the model in `folder` to 8 bits, as mlx-lm's conversion does."""
    weights: dict[str, mx.array] = {}
    for name, weight in mx.load(str(folder / "model.safetensors")).items():  # type: ignore[union-attr]
        stem = name.removesuffix(".weight")
        if weight.ndim == 2 and weight.shape[1] % 32 == 0 and "position" not in name and weight.shape[0] > 1:
            weights[name], weights[f"{stem}.scales"], weights[f"{stem}.biases"] = mx.quantize(weight, 32, 8)
        else:
            weights[name] = weight
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    config = json.loads((folder / "config.json").read_text())
    config["quantization"] = {"group_size": 32, "bits": 8}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("family", ["xlm-roberta", "modernbert-mean", "qwen3"])
def test_quantized_reranker_gives_nearly_the_recorded_reference_scores(tmp_path, family):
    FAMILIES[family](tmp_path)
    quantize(tmp_path)
    facts = read_facts(tmp_path)
    assert (facts.kind, facts.quantization) == ("rerank", "Q8")
    reranker = load_reranker(tmp_path, facts.context_tokens)
    pairs = [
        pair.cut(reranker.context_tokens) for pair in reranker.tokenizer.pairs(QUERIES[0], DOCUMENTS, None)
    ]
    scores = [reranker.score(logit, raw=False) for logit in reranker.logits(pairs)]
    assert scores == pytest.approx(RECORDED[family][0], abs=0.1, rel=0.05)


def in_bfloat16(folder: Path) -> None:
    """Convert the weights of the model in `folder` to bfloat16, the type of most models."""
    path = str(folder / "model.safetensors")
    loaded: dict[str, mx.array] = mx.load(path)  # type: ignore[assignment]
    floats = {name: each.astype(mx.bfloat16) for name, each in loaded.items() if each.dtype == mx.float32}
    mx.save_safetensors(path, {**loaded, **floats})


@pytest.mark.parametrize(
    ("family", "is_quantized"), [*((family, False) for family in FAMILIES), ("qwen3", True)]
)
def test_reranker_that_computes_in_bfloat16_does_not_round_its_scores_to_bfloat16(
    tmp_path, monkeypatch, family, is_quantized
):
    """100 documents got 21 different scores on a GPU, because the logits of yes and no were rounded to
    multiples of 0.125 before they were subtracted.
    """
    FAMILIES[family](tmp_path)
    if is_quantized:
        quantize(tmp_path)
    in_bfloat16(tmp_path)
    monkeypatch.setattr(mx, "default_device", lambda: SimpleNamespace(type=mx.DeviceType.gpu))
    reranker = load_reranker(tmp_path, read_facts(tmp_path).context_tokens)
    found = reranker.tokenizer.pairs(QUERIES[0], DOCUMENTS, None)
    logits = reranker.logits([pair.cut(reranker.context_tokens) for pair in found])
    rounded = np.array(mx.array(logits).astype(mx.bfloat16).astype(mx.float32))
    assert not np.any(rounded == np.array(logits, np.float32))
    scores = [reranker.score(logit, raw=False) for logit in logits]
    assert scores == pytest.approx(RECORDED[family][0], abs=0.15, rel=0.1)


@pytest.mark.parametrize("mode", [None, "affine", "mxfp4", "mxfp8"])
@pytest.mark.parametrize("make", [lambda: nn.Linear(64, 96, bias=False), lambda: nn.Embedding(96, 64)])
def test_logits_of_single_tokens_are_computed_in_float32_from_every_kind_of_output_layer(make, mode):
    mx.random.seed(7)
    layer: Any = make()
    layer.set_dtype(mx.bfloat16)
    if mode is not None:
        layer = layer.to_quantized(mode=mode)
    states = (20 * mx.random.normal((5, 64))).astype(mx.bfloat16)
    weight = layer.weight
    if mode is not None:
        scales, biases = layer.scales, None
        if mode == "affine":
            scales, biases = scales.astype(mx.float32), layer.biases.astype(mx.float32)
        weight = mx.dequantize(weight, scales, biases, layer.group_size, layer.bits, mode)
    exact = np.array(states.astype(mx.float32), np.float64) @ np.array(weight.astype(mx.float32)).T
    logits = _float32_logits(layer, [50, 7], states)
    assert logits.dtype == mx.float32
    np.testing.assert_allclose(np.array(logits), exact[:, [50, 7]], rtol=1e-4, atol=1e-4)
