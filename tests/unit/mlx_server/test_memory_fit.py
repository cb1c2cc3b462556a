"""Whether a model fits into a memory limit, with how long a context, and the sentence about it."""

from __future__ import annotations

import pytest

from mlx_server.memory_forecast.fit import (
    GIB,
    contexts_of,
    default_limit_bytes,
    fit,
    longest_context,
    metal_limit_bytes,
    sentence,
)
from mlx_server.memory_forecast.forecast import ENGINE_BYTES, Forecast, forecast
from mlx_server.memory_forecast.weights import Arithmetic
from tests.unit.mlx_server.published_models import CONFIGS, headers

METAL = Arithmetic(dense_float32=False, fused_attention=True)


def of(name: str, context_tokens: int, *, embeds: bool = False) -> Forecast:
    config = CONFIGS[name] | {"quantization": {"bits": 4, "group_size": 64}}
    return forecast(
        config,
        headers(CONFIGS[name], bits=4),
        METAL,
        step_tokens=512,
        context_tokens=context_tokens,
        embeds=embeds,
    )


def test_needed_memory_without_a_given_context_length_is_what_the_engine_requires_to_load_the_model():
    forecast = of("Qwen3-8B", 40960)
    assert fit(forecast, 24 * GIB).needed_bytes == ENGINE_BYTES + forecast.load_bytes
    assert fit(forecast, 1).as_json() == {
        "fits": False,
        "needed_bytes": ENGINE_BYTES + forecast.load_bytes,
        "limit_bytes": 1,
    }


def test_memory_fit_grows_with_the_kv_of_the_context_up_to_the_models_own_context():
    forecast = of("Llama-3.1-8B", 32768)  # 128 KiB of KV a token
    short, long = (fit(forecast, 24 * GIB, tokens).needed_bytes for tokens in (8192, 16384))
    assert long - short >= 1 * GIB
    assert fit(forecast, 24 * GIB, 131072) == fit(forecast, 24 * GIB, 32768)


@pytest.mark.parametrize("limit_gib", [4, 5, 6, 8, 10, 24])
def test_longest_context_fits_memory_and_the_next_longer_one_does_not(limit_gib):
    forecast = of("Llama-3.1-8B", 131072)
    longest = longest_context(forecast, limit_gib * GIB)
    if longest == 0:
        assert not fit(forecast, limit_gib * GIB, 256).fits
        return
    assert fit(forecast, limit_gib * GIB, longest).fits
    assert longest == 131072 or not fit(forecast, limit_gib * GIB, longest + 256).fits


def test_context_lengths_shown_for_a_model_end_with_its_maximum_and_are_none_for_an_embedder():
    assert contexts_of(of("Qwen3-8B", 40960)) == [8192, 32768, 40960]
    assert contexts_of(of("Qwen3-8B", 2048)) == [2048]
    assert contexts_of(of("Qwen3-8B", 40960, embeds=True)) == []


@pytest.mark.parametrize(
    ("name", "context_tokens", "limit_gib", "said"),
    [
        ("Llama-3.1-8B", 131072, 8, "fits: 5.5 of 8.0 GiB with 8k context; at 32k it does not"),
        ("Llama-3.1-8B", 131072, 64, "fits: 5.5 of 64.0 GiB with 8k context, 21.4 GiB with 128k"),
        ("Llama-3.1-8B", 8192, 64, "fits: 5.5 of 64.0 GiB with 8k context"),
        ("Llama-3.1-70B", 131072, 24, "does not fit: it needs 37.5 GiB, and models may have 24.0 GiB"),
    ],
)
def test_memory_fit_message_says_whether_the_model_fits_and_gives_needed_memory_and_context_length(
    name, context_tokens, limit_gib, said
):
    assert sentence(of(name, context_tokens), limit_gib * GIB) == said


def test_memory_fit_sentence_of_a_model_that_fits_only_with_a_short_context_names_that_context():
    forecast = of("Llama-3.1-8B", 131072)
    limit_bytes = fit(forecast, 0, 4096).needed_bytes
    assert sentence(forecast, limit_bytes).startswith("fits only with a short context: ")
    assert sentence(forecast, limit_bytes).endswith(" with 4k context")


def test_default_memory_limit_leaves_the_larger_of_2_gib_and_15_percent_free_within_the_gpus_limit():
    assert default_limit_bytes(8 * GIB) == 6 * GIB
    assert default_limit_bytes(128 * GIB) == 128 * GIB - 128 * GIB * 15 // 100
    assert default_limit_bytes(2 * GIB) == GIB
    assert default_limit_bytes(24 * GIB, gpu_bytes=17 * GIB) == 17 * GIB


def test_metal_memory_limit_is_the_configured_one_or_metals_recommended_share():
    """16 GiB Macs recommend 10.7 GiB, 64 GiB Macs 48 GiB; `sysctl iogpu.wired_limit_mb` overrides both."""
    assert metal_limit_bytes(16 * GIB) / GIB == pytest.approx(10.67, abs=0.01)
    assert metal_limit_bytes(64 * GIB) == 48 * GIB
    assert metal_limit_bytes(24 * GIB, wired_limit_bytes=20 * GIB) == 20 * GIB
