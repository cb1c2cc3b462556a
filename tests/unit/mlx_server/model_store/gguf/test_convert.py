"""Conversion of GGUF files of every family and type, compared with mlx-lm's own model of the same weights."""

from __future__ import annotations

import contextlib
import importlib
import json

import gguf
import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load_model

from mlx_server.model_store.files import model_folder, weight_files
from mlx_server.model_store.gguf import blocks, convert, reader, tokenizer
from mlx_server.model_store.gguf.config import model_config, sentence_files, sizes_of
from mlx_server.model_store.gguf.families import FAMILIES, place_tensors
from mlx_server.model_store.gguf.inspection import plan
from mlx_server.model_store.gguf.reader import UnsupportedGguf
from tests.unit.mlx_server.model_store.gguf import gguf_files

PROMPT = mx.array([[3, 141, 59, 26, 53, 58, 97, 93, 23, 84, 62, 64, 33, 83, 27, 9]])


def converted(tmp_path, source, *, dense=True):
    convert.convert(source, tmp_path / "model", dense)
    return load_model(tmp_path / "model")


@pytest.mark.parametrize("architecture", gguf_files.CONFIGS)
def test_model_converted_from_gguf_gives_the_logits_of_the_original(tmp_path, architecture):
    original = gguf_files.random_model(gguf_files.CONFIGS[architecture])
    tensors = gguf_files.tensors_of(architecture, original)
    source = gguf_files.write(tmp_path / "m.gguf", gguf_files.metadata_of(architecture), tensors)
    model, _ = converted(tmp_path, source)
    assert mx.allclose(model(PROMPT), original(PROMPT), atol=2e-4, rtol=1e-4)
    assert mx.array_equal(mx.argmax(model(PROMPT), -1), mx.argmax(original(PROMPT), -1))


def llama(**more):
    metadata = gguf_files.metadata_of("llama") | more
    return metadata, gguf_files.tensors_of("llama", gguf_files.random_model(gguf_files.CONFIGS["llama"]))


def test_frequency_factors_in_a_llama_3_gguf_become_its_rope_scaling(tmp_path):
    """Llama 3.1's files have no scaling in their metadata but a tensor `rope_freqs.weight` with factors."""
    scaling = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64}
    config = gguf_files.CONFIGS["llama"] | {"rope_scaling": scaling}
    original = gguf_files.random_model(config)
    tensors = gguf_files.tensors_of("llama", original)
    plain = 10000.0 ** (np.arange(0, 16, 2) / 16)
    tensors["rope_freqs.weight"] = (np.array(original.layers[0].self_attn.rope._freqs) / plain).astype("f4")
    assert tensors["rope_freqs.weight"].max() > 7
    model, _ = converted(
        tmp_path, gguf_files.write(tmp_path / "m.gguf", gguf_files.metadata_of("llama"), tensors)
    )
    assert mx.allclose(model(PROMPT), original(PROMPT), atol=1e-4)


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_rope_scaling_in_gguf_metadata_is_preserved_by_the_conversion(tmp_path, kind):
    scaling = {"type": kind, "factor": 4.0, "original_max_position_embeddings": 128}
    original = gguf_files.random_model(gguf_files.CONFIGS["llama"] | {"rope_scaling": scaling})
    metadata, _ = llama(
        **{
            "llama.rope.scaling.type": kind,
            "llama.rope.scaling.factor": 4.0,
            "llama.rope.scaling.original_context_length": 128,
        }
    )
    source = gguf_files.write(tmp_path / "m.gguf", metadata, gguf_files.tensors_of("llama", original))
    model, _ = converted(tmp_path, source)
    assert mx.allclose(model(PROMPT), original(PROMPT), atol=1e-4)


def test_long_rope_factors_of_a_phi3_gguf_are_preserved_by_the_conversion(tmp_path):
    long, short = [1.0, 1.5, 2.0, 4.0], [1.0] * 4
    scaling = {"type": "longrope", "long_factor": long, "short_factor": short}
    config = gguf_files.CONFIGS["phi3"] | {"rope_scaling": scaling, "original_max_position_embeddings": 128}
    original = gguf_files.random_model(config)
    tensors = gguf_files.tensors_of("phi3", original)
    tensors |= {
        "rope_factors_long.weight": np.array(long, np.float32),
        "rope_factors_short.weight": np.array(short, np.float32),
    }
    metadata = gguf_files.metadata_of("phi3") | {"phi3.rope.scaling.original_context_length": 128}
    model, _ = converted(tmp_path, gguf_files.write(tmp_path / "m.gguf", metadata, tensors))
    assert mx.allclose(model(PROMPT), original(PROMPT), atol=1e-4)


QUANTIZED = [kind.name for kind in reader.TYPES.values() if kind.block_weights > 1]


def random_blocks(kind, rows, columns):
    """Return blocks of random bytes whose scales are small, finite numbers."""
    block = next(each for each in reader.TYPES.values() if each.name == kind)
    count = rows * columns // block.block_weights
    raw = np.random.default_rng(5).integers(0, 256, (count, block.block_bytes), dtype=np.uint8)
    scales = {"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,), "Q4_K": (0, 2), "Q5_K": (0, 2)}
    for start in scales.get(kind, (0, 2) if kind in ("Q4_1", "Q5_1") else (0,)):
        raw[:, start : start + 2] = np.array([0.01], np.float16).view(np.uint8)
    return raw.reshape(rows, -1)


@pytest.mark.parametrize("kind", QUANTIZED)
def test_every_gguf_block_type_is_unpacked_as_by_llama_cpp(kind):
    raw = random_blocks(kind, 8, 512)
    expected = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind])
    block = next(each for each in reader.TYPES.values() if each.name == kind)
    got = blocks.weights(kind, raw.reshape(-1, block.block_bytes)).reshape(8, 512)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("kind", [*QUANTIZED, "F16", "BF16"])
@pytest.mark.parametrize("dense", [True, False], ids=["dense", "quantized"])
def test_gguf_weights_of_every_type_are_converted_with_little_loss(tmp_path, kind, dense):
    """Q4_K_M files, the usual ones, mix Q4_K and Q6_K; MLX's own reader knows only a part of the types."""
    metadata, tensors = llama()
    name = "blk.1.ffn_down.weight"
    metadata["llama.feed_forward_length"] = 256
    for part, shape in (("gate", (256, 64)), ("up", (256, 64)), ("down", (64, 256))):
        for layer in (0, 1):
            tensors[f"blk.{layer}.ffn_{part}.weight"] = np.full(shape, 0.01, np.float32)
    if kind in QUANTIZED:
        tensors[name] = random_blocks(kind, 64, 256)
        expected = gguf.quants.dequantize(tensors[name], gguf.GGMLQuantizationType[kind])
    else:
        values = np.random.default_rng(5).normal(0, 1, (64, 256)).astype(np.float16)
        tensors[name] = values if kind == "F16" else values.astype(np.float32)
        expected = tensors[name].astype(np.float32)
        if kind == "BF16":
            tensors[name] = gguf.quants.quantize(tensors[name], gguf.GGMLQuantizationType.BF16)
            expected = gguf.quants.dequantize(tensors[name], gguf.GGMLQuantizationType.BF16)
    source = gguf_files.write(tmp_path / "m.gguf", metadata, tensors, {name: kind})
    model, config = converted(tmp_path, source, dense=dense)
    layer = model.layers[1].mlp.down_proj
    assert hasattr(layer, "scales") == (kind in QUANTIZED and not dense)
    if hasattr(layer, "scales"):
        assert layer.scales.dtype == mx.float16
        assert config["quantization"] == {"group_size": 32, "bits": layer.bits}
        scales = (layer.scales.astype(mx.float32), layer.biases.astype(mx.float32))
        weight = mx.dequantize(layer.weight, *scales, group_size=32, bits=layer.bits)
    else:
        weight = layer.weight.astype(mx.float32)
    error = np.sqrt(np.mean((np.array(weight) - expected) ** 2) / np.mean(expected**2))
    requantized = {4: 0.1, 5: 0.05, 6: 0.03}.get(getattr(layer, "bits", 0), 4e-4)
    limit = 4e-4 if blocks.keeps_numbers(kind) else requantized
    assert error <= (1e-7 if dense else limit)


def test_large_model_converted_from_gguf_is_written_as_several_files_with_an_index(tmp_path, monkeypatch):
    metadata, tensors = llama()
    source = gguf_files.write(tmp_path / "m.gguf", metadata, tensors)
    monkeypatch.setattr(convert, "_FILE_BYTES", 100_000)
    original = gguf_files.random_model(gguf_files.CONFIGS["llama"])
    model, _ = converted(tmp_path, source)
    assert mx.allclose(model(PROMPT), original(PROMPT), atol=1e-4)
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"general.architecture": "rwkv6"}, "its architecture is 'rwkv6'; Vestal converts llama, qwen2, "),
        ({"llama.expert_count": 8}, "mixture of experts"),
        ({"llama.block_count": 3}, "lacks the tensor blk.2.attn_k.weight and 8 more"),
        (
            {"llama.block_count": (1 << 24) - 1},
            "lacks the tensor blk.10.attn_k.weight",
        ),  # once used up the memory
        ({"llama.block_count": 1}, r"'blk\.1\..*', which is not part"),
        ({"llama.attention.head_count_kv": 4}, r"blk\.0\.attn_k\.weight has the shape \(32, 64\)"),
        ({"llama.rope.dimension_count": 8}, "only a part of each head"),
        ({"llama.rope.scaling.type": "warp"}, "'warp'"),
        ({"split.count": 3}, "one part of several"),
        ({"llama.embedding_length": "64"}, "llama.embedding_length is 64, not a size"),
        ({"tokenizer.ggml.eos_token_id": 9999}, "names 9999 as a special token"),
        ({"tokenizer.ggml.pre": "other"}, "splits text by 'other'; known: gpt-2"),
        ({"tokenizer.ggml.model": "t5"}, "its tokenizer is 't5'"),
        ({"tokenizer.ggml.merges": ["1"]}, "no list of merges"),
        ({"tokenizer.ggml.tokens": gguf_files.TOKENS[:-10]}, "another number of token types"),
    ],
)
def test_gguf_file_that_cannot_be_converted_is_refused_with_the_reason(tmp_path, change, reason):
    metadata, tensors = llama(**change)
    if "general.architecture" in change:
        metadata = {k.replace("llama.", "rwkv6."): v for k, v in metadata.items()}
    source = gguf_files.write(tmp_path / "m.gguf", metadata, tensors)
    with pytest.raises(UnsupportedGguf, match=reason):
        convert.convert(source, tmp_path / "model", True)


def test_gguf_tokenizer_that_does_not_reproduce_a_text_is_refused(tmp_path):
    """A vocabulary without the tokens of some bytes loses the characters that have them."""
    metadata, tensors = llama()
    metadata["tokenizer.ggml.tokens"] = [t if t != "Ģ" else "unused" for t in gguf_files.TOKENS]
    source = gguf_files.write(tmp_path / "m.gguf", metadata, tensors)
    with pytest.raises(UnsupportedGguf, match="its tokenizer cannot be rebuilt: .* comes back as"):
        convert.convert(source, tmp_path / "model", True)


def test_failing_gguf_converter_prints_the_reason_in_its_last_line_and_no_traceback(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("sys.argv", ["convert", __file__, str(tmp_path / "model")])
    assert convert.main() == 1
    assert capsys.readouterr().err == "it is not a GGUF file\n"
    assert not (tmp_path / "model").exists()


def test_every_convertible_gguf_family_is_a_model_type_of_mlx_lm():
    for family in FAMILIES.values():
        importlib.import_module(f"mlx_lm.models.{family.model_type}")


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "quantized"])
def test_size_forecast_of_a_gguf_conversion_equals_the_size_of_the_written_weights(tmp_path, dense):
    metadata, tensors = llama()
    tensors["blk.0.ffn_up.weight"] = random_blocks("Q4_0", 96, 64)
    source = gguf_files.write(tmp_path / "m.gguf", metadata, tensors, {"blk.0.ffn_up.weight": "Q4_0"})
    convert.convert(source, tmp_path / "model", dense)
    written = sum(map(weight_files.stored_bytes, weight_files.read_headers(tmp_path / "model").values()))
    assert plan(source, keep_arrays=False).total_bytes(dense=dense) == written


def test_gguf_file_with_a_pooling_type_becomes_an_embedding_model(tmp_path):
    """Qwen3-Embedding's files have the architecture of the language model, and `pooling_type`."""
    metadata = gguf_files.metadata_of("qwen3") | {"qwen3.pooling_type": 3}
    metadata["tokenizer.ggml.add_eos_token"] = True
    original = gguf_files.random_model(gguf_files.CONFIGS["qwen3"])
    source = gguf_files.write(tmp_path / "m.gguf", metadata, gguf_files.tensors_of("qwen3", original))
    convert.convert(source, tmp_path / "model", True)
    facts = model_folder.read_facts(tmp_path / "model")
    assert (facts.kind, facts.capabilities) == ("embed", ("embedding",))


def test_gguf_token_of_absurd_length_is_refused(tmp_path):
    """The converter looks up all splits of a token for merges: a token of a megabyte would take hours."""
    metadata, tensors = llama()
    metadata["tokenizer.ggml.tokens"] = [*gguf_files.TOKENS[:-1], "a" * 100_000]
    source = gguf_files.write(tmp_path / "m.gguf", metadata, tensors)
    with pytest.raises(UnsupportedGguf, match="a token of 100000 characters"):
        convert.convert(source, tmp_path / "model", True)


ODD_VALUES = [
    [], [0], ["a"], [-1, 2.5], [[1]], "", "x", True, 0, -1, 1 << 40, 0.0, -2.5, float("nan"), float("inf"),
]  # fmt: skip


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "phi3", "qwen3moe"])
def test_gguf_header_entries_with_values_of_any_type_are_read_or_refused(tmp_path, architecture):
    """A header may have any value of any type under any name."""
    original = gguf_files.random_model(gguf_files.CONFIGS[architecture])
    metadata = gguf_files.metadata_of(architecture)
    source = gguf_files.write(tmp_path / "m.gguf", metadata, gguf_files.tensors_of(architecture, original))
    tensors = reader.read_header(source).tensors
    more = (
        *("rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length", "pooling_type"),
        *("attention.key_length", "attention.sliding_window_pattern", "final_logit_softcapping"),
    )
    others = (
        "scores",
        "add_bos_token",
        "add_eos_token",
        "unknown_token_id",
        "padding_token_id",
        "model",
        "pre",
    )
    keys = {*metadata, *(f"{architecture}.{key}" for key in more), "split.count"}
    for key in sorted(keys | {f"tokenizer.ggml.{key}" for key in others}):
        for value in ODD_VALUES:
            for kind in ("gpt2", "llama"):
                changed = metadata | {"tokenizer.ggml.model": kind, key: value}
                with contextlib.suppress(UnsupportedGguf):
                    config = model_config(reader.Header(changed, tensors), {})
                    place_tensors(
                        architecture, tensors.values(), sizes_of(config), config["num_hidden_layers"]
                    )
                    sentence_files(changed, config)
                    tokenizer.tokenizer_json(changed)
                    json.dumps([config, tokenizer.tokenizer_config(changed)])


def test_image_encoder_in_a_gguf_file_is_omitted_by_the_conversion(tmp_path):
    """Ollama keeps Gemma 3's image encoder in the same file."""
    original = gguf_files.random_model(gguf_files.CONFIGS["gemma3"])
    tensors = gguf_files.tensors_of("gemma3", original)
    tensors |= {"v.patch_embedding.weight": np.ones((8, 3, 4, 4), np.float32)}
    tensors |= {"mm.mm_input_projection.weight": np.ones((8, 64), np.float32)}
    source = gguf_files.write(tmp_path / "m.gguf", gguf_files.metadata_of("gemma3"), tensors)
    assert plan(source).leaves_out_images
    model, _ = converted(tmp_path, source)
    assert mx.allclose(model(PROMPT), original(PROMPT), atol=2e-4)
