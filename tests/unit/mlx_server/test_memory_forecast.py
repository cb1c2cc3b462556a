"""Forecasts of models' memory from published configurations and the headers of their weights."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server.memory_forecast.forecast import Forecast, forecast
from mlx_server.memory_forecast.kv import kv_shape
from mlx_server.memory_forecast.kv_quantization import KvQuantization
from mlx_server.memory_forecast.weights import (
    IN_FLIGHT_BYTES,
    SLICE_BYTES,
    Arithmetic,
    forecast_weights,
)
from tests.unit.mlx_server.published_models import CONFIGS, headers

METAL = Arithmetic(dense_float32=False, fused_attention=True)
CPU = Arithmetic(dense_float32=True, fused_attention=False)
GB = 1e9
KIB = 1024


def of(name: str, arithmetic: Arithmetic = METAL, bits: int = 0) -> Forecast:
    config = CONFIGS[name] | ({"quantization": {"bits": bits, "group_size": 64}} if bits else {})
    return forecast(
        config, headers(CONFIGS[name], bits=bits), arithmetic, step_tokens=512, context_tokens=8192
    )


@pytest.mark.parametrize(
    ("name", "parameters"),  # parameters in 10⁹, as the models' authors state them
    [
        ("Llama-3.2-1B", 1.236),
        ("Llama-3.1-8B", 8.03),
        ("Llama-3.1-70B", 70.55),
        ("Qwen2.5-7B", 7.62),
        ("Qwen2.5-32B", 32.76),
        ("Qwen3-4B", 4.02),
        ("Qwen3-8B", 8.19),
        ("Mistral-7B-v0.3", 7.25),
        ("gemma-2-9b", 9.24),
        ("gemma-3-4b", 3.88),
        ("SmolLM2-135M", 0.1345),
        ("SmolLM2-1.7B", 1.711),
        ("Phi-3-mini-4k", 3.82),
        ("phi-4", 14.66),
    ],
)
def test_weights_size_forecast_equals_the_published_parameter_count_times_bytes_per_number(name, parameters):
    assert of(name).weights.bytes / 2 / GB == pytest.approx(parameters, rel=0.01)
    assert of(name, CPU).weights.bytes / 4 / GB == pytest.approx(parameters, rel=0.01)


@pytest.mark.parametrize(
    ("name", "kib_a_token"),  # 2 · layers · KV heads · head dimension · 2 bytes
    [
        ("Llama-3.2-1B", 32),
        ("Llama-3.1-8B", 128),
        ("Llama-3.1-70B", 320),
        ("Qwen2.5-7B", 56),
        ("Qwen2.5-32B", 256),
        ("Qwen3-4B", 144),
        ("Qwen3-8B", 144),
        ("Mistral-7B-v0.3", 128),
        ("gemma-2-9b", 336),
        ("gemma-3-4b", 136),
        ("SmolLM2-135M", 22.5),
        ("SmolLM2-1.7B", 192),
        ("Phi-3-mini-4k", 384),
        ("phi-4", 200),
    ],
)
def test_kv_size_forecast_per_token_follows_from_the_attention_heads(name, kib_a_token):
    kv = of(name).kv
    assert kv is not None
    assert kv.token_bytes == kib_a_token * KIB


@pytest.mark.parametrize(
    (
        "name",
        "bits",
        "group_size",
        "share",
    ),  # per number: its bits, and a share of the group's 16-bit scale and 16-bit bias
    [
        ("Llama-3.1-8B", 8, 64, 8.5 / 16),
        ("Llama-3.1-8B", 4, 64, 4.5 / 16),
        ("Llama-3.1-8B", 4, 32, 5 / 16),
        ("Phi-3-mini-4k", 8, 32, 9 / 16),  # heads of 96
        ("Phi-3-mini-4k", 8, 64, 1),  # which 64 does not divide
    ],
)
def test_quantized_kv_size_forecast_per_token_follows_from_bits_and_group_size(name, bits, group_size, share):
    shapes = {tensor: tuple(entry["shape"]) for tensor, entry in headers(CONFIGS[name]).items()}
    computed = kv_shape(CONFIGS[name], shapes, 2)
    quantized = kv_shape(CONFIGS[name], shapes, 2, KvQuantization(bits, group_size))
    assert quantized.token_bytes == computed.token_bytes * share
    assert quantized.bytes(3, 1000) == computed.bytes(3, 1000) * share


def test_quantized_kv_size_forecast_does_not_shrink_layers_with_a_sliding_window():
    gemma = CONFIGS["gemma-3-4b"]
    computed, quantized = kv_shape(gemma, {}, 2), kv_shape(gemma, {}, 2, KvQuantization(4, 64))
    saved = computed.full_layers * computed.layer_floats * 2 * (1 - 4.5 / 16)
    assert 0 < saved == pytest.approx(computed.token_bytes - quantized.token_bytes)


def test_kv_size_forecast_assumes_an_unquantized_cache_for_an_unknown_model_with_sliding_window_settings():
    unknown = CONFIGS["Llama-3.1-8B"] | {"model_type": "unheard-of", "sliding_window": 1024}
    assert kv_shape(unknown, {}, 2, KvQuantization(4, 64)).quantized
    for hint in (
        {"layer_types": ["sliding_attention", "full_attention"] * 16},
        {"sliding_window_pattern": 4},
    ):
        assert kv_shape(unknown | hint, {}, 2, KvQuantization(4, 64)) == kv_shape(unknown | hint, {}, 2)


@pytest.mark.parametrize("name", CONFIGS)
def test_kv_size_forecast_from_the_configuration_alone_equals_the_one_from_the_weights(name):
    shapes = {tensor: tuple(entry["shape"]) for tensor, entry in headers(CONFIGS[name]).items()}
    assert kv_shape(CONFIGS[name], {}, 2) == kv_shape(CONFIGS[name], shapes, 2)


def test_kv_size_forecast_of_gemma_3_is_the_same_without_the_sizes_that_its_published_configuration_omits():
    """Each layer of Gemma 3 4B, which names no heads, once counted as one without keys and values."""
    whole = CONFIGS["gemma-3-4b"]
    omitted = ("num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size")
    text = {name: value for name, value in whole["text_config"].items() if name not in omitted}
    published = whole | {"text_config": text}
    shapes = headers(whole)
    of_whole, of_published = (
        forecast(config, shapes, METAL, step_tokens=512, context_tokens=8192) for config in (whole, published)
    )
    assert of_whole == of_published
    assert kv_shape(published, {}, 2) == kv_shape(whole, {}, 2)


def test_kv_size_forecast_counts_layers_with_key_projections_if_the_config_has_no_head_count():
    unknown = {"model_type": "unheard-of", "hidden_size": 64, "num_hidden_layers": 2}
    shapes = {f"model.layers.{n}.self_attn.{part}_proj.weight": (32, 64) for n in (0, 1) for part in "kv"}
    assert kv_shape(unknown, shapes, 2).full_layers == 2
    rwkv = {name.replace("self_attn", "attn"): shape for name, shape in shapes.items()}
    assert kv_shape(unknown | {"model_type": "rwkv7"}, rwkv, 2).full_layers == 0


def test_memory_forecast_takes_the_largest_of_sizes_that_differ_by_layer():
    """Gemma 3n has a list of feed-forward widths; its requests were once forecast to need nothing."""
    config = CONFIGS["Llama-3.2-1B"]
    widths = [config["intermediate_size"]] * 15 + [1024]
    listed, plain = (
        forecast(each, headers(config), METAL, step_tokens=512, context_tokens=8192)
        for each in (config | {"intermediate_size": widths}, config)
    )
    assert listed == plain


def test_weights_size_forecast_of_quantized_weights_is_packed_on_metal_and_dense_on_a_cpu():
    packed = of("Llama-3.1-8B", bits=4)
    assert packed.weights.bytes == pytest.approx(8.03e9 * 4.5 / 8, rel=0.01)  # a scale and a bias for 64
    assert of("Llama-3.1-8B", CPU, bits=4).weights.bytes == of("Llama-3.1-8B", CPU).weights.bytes
    assert of("Llama-3.1-8B", CPU, bits=4).weights.number_bytes == 4


def test_weights_size_forecast_counts_mixed_bits_tensor_by_tensor():
    shapes = headers(CONFIGS["SmolLM2-135M"], bits=4)
    embed = headers(CONFIGS["SmolLM2-135M"], bits=8)
    shapes |= {name: entry for name, entry in embed.items() if "embed_tokens" in name}
    config = {"quantization": {"bits": 4, "group_size": 64, "model.embed_tokens": {"bits": 8}}}
    assert forecast_weights(shapes, config, CPU).bytes == pytest.approx(134.5e6 * 4, rel=0.01)


def test_memory_forecast_for_loading_a_tiny_model_counts_one_read_buffer_and_not_four():
    """A model of 200 kB was once refused because 64 MiB of slices, as a large model reads, were counted."""
    entry = {"dtype": "BF16", "shape": [100, 100], "data_offsets": [0, 20_000]}
    few, many = (
        forecast_weights({f"layers.{n}.weight": entry for n in range(count)}, {}, CPU)
        for count in (1, 10_000)
    )
    assert (few.bytes, few.loading_bytes) == (40_000, SLICE_BYTES)
    assert (many.bytes, many.loading_bytes) == (400_000_000, IN_FLIGHT_BYTES)


def test_memory_forecast_of_a_70b_model_is_within_3_percent_of_its_known_size():
    assert of("Llama-3.1-70B", bits=4).load_bytes / 2**30 == pytest.approx(37.5, rel=0.03)
    assert of("Llama-3.1-70B").load_bytes / 2**30 > 131


def test_memory_forecast_counts_the_weights_of_a_vision_tower_that_is_loaded():
    """An F32 norm of the tower does not widen the numbers of the text model."""
    seeing = headers(CONFIGS["gemma-3-4b"])
    for name, dtype, size in (("blocks.0.weight", "BF16", 20), ("post_layernorm.weight", "F32", 40)):
        seeing[f"vision_tower.{name}"] = {"dtype": dtype, "shape": [10], "data_offsets": [0, size]}
    plain = forecast_weights(headers(CONFIGS["gemma-3-4b"]), {}, METAL)
    loaded = forecast_weights(seeing, {}, METAL, reads_images=True)
    assert (loaded.bytes, loaded.number_bytes) == (plain.bytes + 60, plain.number_bytes)


def test_memory_forecast_ignores_vision_weights_that_are_not_loaded():
    seeing = headers(CONFIGS["gemma-3-4b"])
    seeing["vision_tower.blocks.0.weight"] = {"dtype": "BF16", "shape": [10], "data_offsets": [0, 20]}
    plain = forecast_weights(headers(CONFIGS["gemma-3-4b"]), {}, METAL)
    assert forecast_weights(seeing, {}, METAL) == plain


def test_memory_forecast_of_a_model_with_a_float32_norm_counts_a_float32_kv_cache():
    shapes = headers(CONFIGS["SmolLM2-135M"])
    shapes["model.norm.weight"] = {"dtype": "F32", "shape": [576], "data_offsets": [0, 2304]}
    assert forecast_weights(shapes, {}, METAL).number_bytes == 4


def test_kv_size_forecast_is_bounded_by_sliding_windows_only_if_mlx_lm_rotates_the_cache():
    gemma3, gemma2 = of("gemma-3-4b").kv, of("gemma-2-9b").kv
    assert gemma3 is not None and gemma2 is not None
    assert (gemma3.full_layers, gemma3.sliding_layers) == (5, 29)
    assert gemma3.bytes(1, 32768) == (5 * 32768 + 29 * 1024) * 4 * KIB
    assert gemma2.sliding_layers == 0
    listed = {
        "model_type": "gpt_oss", "num_hidden_layers": 24, "num_attention_heads": 64, "head_dim": 64,
        "num_key_value_heads": 8, "hidden_size": 2880, "sliding_window": 128,
        "layer_types": ["sliding_attention", "full_attention"] * 12,
    }  # fmt: skip
    assert kv_shape(listed, {}, 2).sliding_layers == 12


def test_kv_size_forecast_counts_the_latent_vector_for_deepseek_v3_and_all_heads_for_deepseek_v2():
    v3 = {
        "model_type": "deepseek_v3", "num_hidden_layers": 61, "num_attention_heads": 128,
        "hidden_size": 7168, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128,
        "v_head_dim": 128,
    }  # fmt: skip
    assert kv_shape(v3, {}, 2).token_bytes == 61 * 576 * 2
    assert kv_shape(v3 | {"model_type": "deepseek_v2"}, {}, 2).token_bytes == 61 * 128 * (192 + 128) * 2


def test_kv_size_forecast_of_linear_attention_layers_is_constant():
    hybrid = {
        "model_type": "qwen3_next", "num_hidden_layers": 48, "full_attention_interval": 4,
        "hidden_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 256,
        "linear_num_value_heads": 32, "linear_num_key_heads": 16, "linear_key_head_dim": 128,
        "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4,
    }  # fmt: skip
    kv = kv_shape(hybrid, {}, 2)
    assert kv.full_layers == 12
    assert kv.token_bytes == 12 * 1024 * 2
    assert kv.bytes(1, 1) > 36 * 32 * 128 * 128 * 2


@given(
    name=st.sampled_from(sorted(CONFIGS)),
    rows=st.integers(1, 8),
    tokens=st.integers(1, 200_000),
    more=st.integers(0, 10_000),
)
def test_memory_forecast_never_shrinks_with_more_requests_or_tokens(name, rows, tokens, more):
    expected = of(name)
    assert expected.kv is not None
    here = expected.requests_bytes(rows, tokens)
    assert here >= expected.kv.bytes(rows, tokens) > 0
    assert expected.requests_bytes(rows, tokens + more) >= here
    assert expected.requests_bytes(rows + 1, tokens) > here


@given(name=st.sampled_from(sorted(CONFIGS)), bits=st.sampled_from([0, 2, 4, 8]))
def test_memory_forecast_for_a_cpu_is_never_below_the_one_for_metal(name, bits):
    assert of(name, CPU, bits).load_bytes >= of(name, METAL, bits).load_bytes
