"""Scores of rerankers with random weights, compared with those of sentence-transformers and transformers,
which `tests/data/rerankers/record.py` has recorded.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_server.engine.embeddings.encoder import padded
from mlx_server.engine.models.self_test import run_self_test
from mlx_server.engine.reranking.heads import HEADS
from mlx_server.engine.reranking.judge import shared_tokens
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
        while not job.step():
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
