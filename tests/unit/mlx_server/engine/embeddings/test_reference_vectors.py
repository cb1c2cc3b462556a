"""The vectors of each family of embedders, compared with those of sentence-transformers on the same weights.

tests/data/embedders/record.py recorded the latter.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mlx_server.engine.embeddings.architectures.attention import (
    QUERIES_AT_ONCE,
    Heads,
    visible_keys,
    visible_within,
)
from mlx_server.engine.embeddings.encoder import Encoder, load_encoder
from mlx_server.engine.models.self_test import run_self_test
from mlx_server.engine.pausable_call import PausableCall
from mlx_server.model_store.files import model_folder, weight_files
from mlx_server.protocol import unpack_vectors
from tests.models.embedder_folders import (
    DECODERS,
    FAMILIES,
    LAYERS,
    NOMIC_IN_TRANSFORMERS,
    POSITIONS,
    TEXTS,
    make,
)

RECORDED = json.loads(Path("tests/data/embedders/vectors.json").read_text("utf-8"))
SAME_COSINE = 0.99999
"""The cosine of our vector and the reference's; the requirement is 0.9999."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a function that makes the folder of a family, once."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = make(family, tmp_path_factory.mktemp("embedders") / family)
        return made[family]

    return folder


class PaddingEncoder(Encoder):
    """An encoder that pads texts, as all do on a GPU."""

    packs = False


def vectors_of(encoder: Encoder, *, together: bool) -> np.ndarray:
    """Return the vectors of all texts, computed in one batch, or divided by length as requests are."""
    ids = [
        encoder.tokenizer.truncate(row, encoder.context_tokens) for row in encoder.tokenizer.tokenize(TEXTS)
    ]
    if together:
        return np.array(encoder.encode(ids))
    vectors: dict[int, list[float]] = {}
    pending = encoder.pending(list(map(len, ids)))
    while batch := pending.take():
        vectors.update(zip(batch, encoder.encode([ids[i] for i in batch]), strict=True))
    return np.array([vectors[i] for i in range(len(ids))])


def cosines(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return (ours * theirs).sum(axis=1) / lengths


@pytest.mark.parametrize("pads", [True, False], ids=["padded", "as here"])
@pytest.mark.parametrize("together", [True, False], ids=["one batch", "batches by length"])
@pytest.mark.parametrize("family", FAMILIES)
def test_embedding_vectors_equal_the_recorded_ones_of_sentence_transformers(folders, family, together, pads):
    encoder = load_encoder(folders(family), POSITIONS)
    if pads:
        encoder = PaddingEncoder(**{each.name: getattr(encoder, each.name) for each in fields(encoder)})
    ours = vectors_of(encoder, together=together)
    theirs = np.array(unpack_vectors(RECORDED[family]["vectors"], RECORDED[family]["dim"]))
    if not encoder.steps.normalizes:  # sentence-transformers then returns vectors of any length
        np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    else:
        np.testing.assert_allclose(ours, theirs, atol=2e-4)
    assert cosines(ours, theirs).min() > SAME_COSINE


def test_recorded_reference_vectors_differ_between_texts():
    for family, recorded in RECORDED.items():
        rows = np.array(unpack_vectors(recorded["vectors"], recorded["dim"]))
        assert cosines(rows[:-1], rows[1:]).max() < 0.999, family


@pytest.mark.parametrize("family", FAMILIES)
def test_embedder_of_each_family_is_recognized_and_passes_the_self_test(folders, family):
    facts = model_folder.read_facts(folders(family))
    assert (facts.kind, facts.capabilities) == ("embed", ("embedding",))
    assert facts.context_tokens == (24 if family == "xlm-roberta" else POSITIONS)
    assert run_self_test([load_encoder(folders(family), facts.context_tokens)])[0]


def test_nomic_bert_computes_the_same_vectors_from_weights_with_transformers_names_as_with_published_names(
    folders, tmp_path
):
    expected = vectors_of(load_encoder(folders("nomic_bert"), POSITIONS), together=True)
    folder = make("nomic_bert", tmp_path / "nomic")
    (folder / "config.json").write_text(json.dumps(NOMIC_IN_TRANSFORMERS))
    renamed = {}
    for published, weight in load_file(folder / "model.safetensors").items():
        name = published
        for old, new in _TRANSFORMERS_NAMES:
            name = name.replace(old, new)
        if ".Wqkv." in name:
            for part, piece in zip("qkv", np.split(weight, 3), strict=True):
                renamed[name.replace("attn.Wqkv", f"self_attn.{part}_proj")] = piece
        else:
            renamed[name] = weight
    save_file(renamed, folder / "model.safetensors")
    np.testing.assert_allclose(
        vectors_of(load_encoder(folder, POSITIONS), together=True), expected, atol=1e-6
    )


_TRANSFORMERS_NAMES = (
    ("encoder.layers.", "layers."),
    ("emb_ln", "embeddings.LayerNorm"),
    ("attn.out_proj", "self_attn.o_proj"),
    ("fc11", "up_proj"),
    ("fc12", "gate_proj"),
    ("fc2", "down_proj"),
    ("norm1", "post_attention_layernorm"),
    ("norm2", "post_mlp_layernorm"),
)


@pytest.mark.parametrize("family", ["bert", "modernbert", "nomic_bert", "qwen3", "gemma3_text"])
def test_quantized_embedder_gives_the_vectors_of_its_dequantized_weights(folders, tmp_path, family):
    """In MLX's form, the projections of an EmbeddingGemma are stored among the weights, as `dense.0`."""
    quantized, dense = (make(family, tmp_path / name) for name in ("quantized", "dense"))
    weights = {name: mx.array(each) for name, each in load_file(dense / "model.safetensors").items()}
    for i, path in enumerate(sorted(quantized.glob("*_Dense/model.safetensors"))):
        weights[f"dense.{i}.weight"] = mx.array(load_file(path)["linear.weight"])
        path.unlink()
    packed, restored = dict[str, mx.array](), dict[str, mx.array]()
    for name, weight in weights.items():
        stem, _, last = name.rpartition(".")
        if weight.ndim == 2 and weight.shape[1] % 32 == 0 and "token_type" not in name:
            parts = mx.quantize(weight, group_size=32, bits=8)
            packed |= {f"{stem}.{key}": part for key, part in zip(_PARTS, parts, strict=True)}
            restored[name] = mx.dequantize(*parts, group_size=32, bits=8)
        else:
            packed[name] = restored[name] = weight
    mx.save_safetensors(str(quantized / "model.safetensors"), packed)
    mx.save_safetensors(str(dense / "model.safetensors"), restored)
    for i, path in enumerate(sorted(dense.glob("*_Dense/model.safetensors"))):
        mx.save_safetensors(str(path), {"linear.weight": restored[f"dense.{i}.weight"]})
    config = weight_files.read_config(quantized) | {"quantization": {"group_size": 32, "bits": 8}}
    (quantized / "config.json").write_text(json.dumps(config))
    ours = vectors_of(load_encoder(quantized, POSITIONS), together=True)
    np.testing.assert_allclose(ours, vectors_of(load_encoder(dense, POSITIONS), together=True), atol=1e-5)
    assert model_folder.read_facts(quantized).quantization == "Q8"


_PARTS = ("weight", "scales", "biases")


def test_embedding_text_cut_at_the_limit_keeps_its_closing_token(folders):
    tokenizer = load_encoder(folders("qwen3"), POSITIONS).tokenizer
    (ids,) = tokenizer.tokenize([TEXTS[4]])
    cut = tokenizer.truncate(ids, 5)
    assert (cut[:4], cut[4]) == (ids[:4], ids[-1])
    assert set(DECODERS) >= {"qwen3"} and tokenizer.closing_tokens == 1


@pytest.mark.parametrize(("similarity", "length"), [(None, 1.0), ("cosine", 1.0), ("dot", None)])
def test_embedding_vectors_are_normalized_unless_the_model_compares_by_dot_product(
    tmp_path, similarity, length
):
    folder = make("bert", tmp_path / "bert")
    content = {"similarity_fn_name": similarity}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(content))
    found = np.linalg.norm(vectors_of(load_encoder(folder, POSITIONS), together=True)[0])
    theirs = np.linalg.norm(unpack_vectors(RECORDED["bert"]["vectors"], RECORDED["bert"]["dim"])[0])
    assert found == pytest.approx(theirs if length is None else length, rel=1e-5)


def test_embedders_own_gelu_and_silu_equal_those_of_mlx():
    from mlx_server.engine.embeddings.architectures.activations import gelu, silu

    x = mx.linspace(-30, 30, 20_001)
    for ours, theirs in ((gelu, nn.gelu), (silu, nn.silu)):
        difference = mx.abs(ours(x) - theirs(x)) / mx.maximum(1, mx.abs(x))
        assert np.array(difference).max() < 2e-6


@pytest.mark.parametrize("family", ["modernbert", "qwen3"])
def test_encoding_texts_can_be_paused_after_each_layer(folders, family):
    encoder = load_encoder(folders(family), POSITIONS)
    texts = [[i % 30 for i in range(length)] for length in (20, 60)]
    call, parts = PausableCall(lambda: encoder.encode(texts)), 1
    while not call.go_on(until_s=0.0):
        parts += 1
    assert parts > LAYERS
    np.testing.assert_allclose(call.result, encoder.encode(texts), atol=1e-6)


@pytest.mark.parametrize("distance", [None, 300])
def test_embedding_attention_computed_in_chunks_of_queries_equals_attention_computed_at_once(distance):
    mx.random.seed(3)
    length = QUERIES_AT_ONCE + 200
    q, k, v = (mx.random.normal((2, length, 8)) for _ in range(3))
    mask = visible_keys(mx.arange(length)[None] < mx.array([[length], [700]]))
    near = mask if distance is None else visible_within(mask, length, distance)
    split = [x.reshape(2, length, 2, 4).swapaxes(1, 2) for x in (q, k, v)]
    whole = mx.fast.scaled_dot_product_attention(*split, scale=0.5, mask=near)
    ours = Heads(2, distance=distance).attend(q, k, v, mask)
    expected = whole.swapaxes(1, 2).reshape(2, length, 8)
    np.testing.assert_allclose(np.array(ours)[0], np.array(expected)[0], atol=1e-5)
    np.testing.assert_allclose(np.array(ours)[1, :700], np.array(expected)[1, :700], atol=1e-5)
