"""`config.json` of files whose metadata is not what llama.cpp's converter writes: those of Ollama's own."""

from __future__ import annotations

import pytest

from mlx_server.model_store.gguf.config import end_tokens, model_config
from mlx_server.model_store.gguf.reader import TYPES, Header, Tensor, UnsupportedGguf
from mlx_server.model_store.gguf.tokenizer import tokenizer_json
from tests.unit.mlx_server.model_store.gguf import gguf_files


def config(architecture, changes, tensors=(), factors=None):
    """Return the configuration with these entries changed; None removes one."""
    metadata = gguf_files.metadata_of(architecture) | {
        key
        if "." in key and key.split(".")[0] in ("tokenizer", "general")
        else f"{architecture}.{key}": value
        for key, value in changes.items()
    }
    own = [Tensor("token_embd.weight", TYPES[0], (288, 64), 0, 0), *tensors]
    kept = {key: value for key, value in metadata.items() if value is not None}
    return model_config(Header(kept, {each.name: each for each in own}), factors or {})


GEMMA3_OF_OLLAMA = {"attention.layer_norm_rms_epsilon": None, "rope.freq_base": None}


def test_gemma3_gguf_of_ollamas_converter_gets_default_values_for_missing_metadata():
    """Files of Ollama's converter with an image encoder lack the norms' epsilon and all frequencies."""
    made = config("gemma3", GEMMA3_OF_OLLAMA | {"block_count": 34, "rope.local.freq_base": 10000.0})
    assert made["rms_norm_eps"] == 1e-6
    assert (made["rope_theta"], made["rope_local_base_freq"]) == (1_000_000.0, 10_000.0)
    assert made["rope_scaling"] == {"type": "linear", "rope_type": "linear", "factor": 8.0}


def test_gemma3_1b_gguf_of_ollamas_converter_has_no_rope_scaling_and_its_logit_cap_is_ignored():
    made = config("gemma3", GEMMA3_OF_OLLAMA | {"block_count": 26, "final_logit_softcapping": 30.0})
    assert "rope_scaling" not in made
    with pytest.raises(UnsupportedGguf, match="caps its logits"):
        config("gemma3", {"final_logit_softcapping": 30.0})


def test_gguf_sliding_window_layers_may_be_given_as_a_list_or_as_a_period():
    listed = [True] * 5 + [False] + [True] * 2
    assert config("gemma3", {"attention.sliding_window_pattern": listed})["sliding_window_pattern"] == 6
    assert config("gemma3", {"attention.sliding_window_pattern": 4})["sliding_window_pattern"] == 4
    with pytest.raises(UnsupportedGguf, match="no regular order"):
        config("gemma3", {"attention.sliding_window_pattern": [True, False, True, True]})


def test_gguf_expert_size_missing_in_the_metadata_is_taken_from_the_tensor():
    tensor = Tensor("blk.0.ffn_gate_exps.weight", TYPES[0], (4, 48, 64), 0, 0)
    made = config("qwen3moe", {"expert_feed_forward_length": None, "norm_top_k_prob": False}, [tensor])
    assert (made["moe_intermediate_size"], made["norm_topk_prob"]) == (48, False)


def test_gguf_rotary_size_that_contradicts_the_head_size_is_ignored():
    """Ollama's converter writes the hidden size's value for Mistral Nemo, whose heads are smaller."""
    changes = {"rope.dimension_count": 16, "attention.key_length": 8, "attention.value_length": 8}
    assert config("llama", changes)["head_dim"] == 8


def test_gguf_yarn_scaling_without_an_original_length_uses_the_models_context():
    made = config("qwen2", {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0})
    assert made["rope_scaling"]["original_max_position_embeddings"] == made["max_position_embeddings"]


def test_gguf_with_empty_lists_of_rope_factors_has_no_rope_scaling():
    """Ollama's converter writes two empty tensors for a Phi 3 without scaling."""
    assert "rope_scaling" not in config(
        "phi3", {}, factors={"rope_factors_long": [], "rope_factors_short": []}
    )


def test_gguf_end_tokens_may_be_given_as_a_list():
    metadata = {"tokenizer.ggml.eos_token_id": 1, "tokenizer.ggml.eos_token_ids": [1, 106]}
    assert end_tokens(metadata) == [1, 106]


def test_gemma_gguf_tokenizer_adds_no_space_before_texts_by_default():
    metadata = {
        "general.architecture": "gemma3", "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "a"], "tokenizer.ggml.scores": [0.0, -1.0],
        "tokenizer.ggml.token_type": [2, 1],
    }  # fmt: skip
    assert len(tokenizer_json(metadata)["normalizer"]["normalizers"]) == 1
    assert len(tokenizer_json(metadata | {"general.architecture": "llama"})["normalizer"]["normalizers"]) == 2
