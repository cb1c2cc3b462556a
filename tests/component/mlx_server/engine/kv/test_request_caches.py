"""Tiny models of several families: which can use quantized caches, for which layers, with which answers."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

mx = pytest.importorskip("mlx.core")

from mlx_lm.models import deepseek_v3, gemma3_text, gpt_oss, llama  # noqa: E402

from mlx_server.engine.kv.request_caches import make_request_caches, quantization_obstacle  # noqa: E402
from mlx_server.memory_forecast.kv_quantization import KvQuantization  # noqa: E402
from tests.component.mlx_server.engine.prompt_cache.test_prompt_cache_snapshots import (  # noqa: E402
    PROMPT,
    Runs,
    hybrid,
    made,
    state_space,
)

EIGHT = KvQuantization(8, 32)
COMMON: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 64, "rms_norm_eps": 1e-6, "vocab_size": 64}


def full_attention(head_dim: int = 32) -> Any:
    given = {**COMMON, "model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 4}
    return llama.Model(llama.ModelArgs(**given, num_key_value_heads=2, head_dim=head_dim))


def sliding_window() -> Any:
    given = {**COMMON, "model_type": "gemma3_text", "num_hidden_layers": 4, "num_attention_heads": 2}
    more = {"num_key_value_heads": 1, "head_dim": 32, "sliding_window": 24, "sliding_window_pattern": 2}
    return gemma3_text.Model(gemma3_text.ModelArgs(**given, **more))


def wide_hybrid() -> Any:
    return hybrid(64)


def attention_sinks() -> Any:
    given = {**COMMON, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    more = {"head_dim": 32, "num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 24}
    return gpt_oss.Model(gpt_oss.ModelArgs(**given, **more))


def latent_attention() -> Any:
    return deepseek_v3.Model(
        deepseek_v3.ModelArgs(
            model_type="deepseek_v3", vocab_size=64, hidden_size=64, intermediate_size=64,
            moe_intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
            n_shared_experts=1, n_routed_experts=None, kv_lora_rank=32, q_lora_rank=32,
            qk_rope_head_dim=32, v_head_dim=32, qk_nope_head_dim=32, rope_scaling=None,
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "cache_types"),
    [
        (full_attention, ["QuantizedRequestKV"] * 2),
        (sliding_window, ["RotatingKVCache", "QuantizedRequestKV"] * 2),
        (wide_hybrid, ["ArraysCache", "QuantizedRequestKV"] * 2),
    ],
)
def test_kv_quantization_applies_only_to_layers_of_full_attention(make, cache_types):
    model = made(make)
    assert quantization_obstacle(model, EIGHT) is None
    assert [type(cache).__name__ for cache in make_request_caches(model, EIGHT)] == cache_types


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: full_attention(head_dim=16), "group size 32"),
        (state_space, "no layer keeps plain keys and values"),
        (attention_sinks, "sinks"),
        (latent_attention, "Error"),
    ],
)
def test_kv_quantization_check_returns_the_reason_why_a_models_kv_cache_cannot_be_quantized(make, reason):
    assert reason in str(quantization_obstacle(made(make), EIGHT))


def test_kv_quantization_check_of_a_model_does_not_evaluate_its_weights():
    model = full_attention()  # its weights are not evaluated yet
    mx.eval(mx.zeros(1))
    gc.collect()  # so that nothing of earlier tests is freed between the two readings
    before = mx.get_active_memory()
    assert quantization_obstacle(model, EIGHT) is None
    assert mx.get_active_memory() == before


@pytest.mark.parametrize("make", [full_attention, sliding_window, wide_hybrid])
def test_quantized_kv_restored_from_the_prompt_cache_gives_the_same_answer(make, tmp_path: Path):
    model = made(make)
    others = [PROMPT[20:75], PROMPT[3:10], [*PROMPT[:40], 2, 3]]
    first = Runs(model, tmp_path / "shared", EIGHT)
    (cold,), (cached_at_first,) = first.answers(PROMPT)
    assert (cached_at_first, len(set(cold)) > 1) == (0, True)
    assert first.answers(PROMPT) == ([cold], [len(PROMPT) - 1])  # from RAM
    first.store.persist(10.0)
    restarted = Runs(model, tmp_path / "shared", EIGHT)
    answers, cached = restarted.answers(
        PROMPT, *others
    )  # from disk, in a batch with prompts that are not cached
    assert answers[0] == cold
    assert cached[0] == len(PROMPT) - 1
    alone = [Runs(model, tmp_path / str(n), EIGHT).answers(one)[0][0] for n, one in enumerate(others)]
    assert answers[1:] == alone
    not_quantized = Runs(model, tmp_path / "shared")
    assert not_quantized.answers(PROMPT)[1] == [0]
