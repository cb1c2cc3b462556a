"""Small GGUF files, written as llama.cpp's converter writes them, with its own package `gguf`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

BYTES = [chr(i) for i in [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100), *range(256, 324)]]
"""A token for each byte, in the characters that stand for bytes in byte-level BPE."""
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *BYTES, "12", "ab", "Ġab"]
BYTE_LEVEL: dict[str, Any] = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "qwen2",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": [3, 3, 3] + [1] * (len(BYTES) + 3),
    "tokenizer.ggml.merges": ["1 2", "a b", "Ġ ab"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.chat_template": "{{ messages }}",
}

COMMON = {
    "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-6, "vocab_size": 288,
    "max_position_embeddings": 512, "rope_theta": 10000.0,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": COMMON | {"model_type": "llama", "tie_word_embeddings": False},
    "qwen2": COMMON | {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": COMMON | {"model_type": "qwen3", "head_dim": 32, "tie_word_embeddings": False},
    "qwen3moe": COMMON
    | {"model_type": "qwen3_moe", "tie_word_embeddings": False, "num_experts": 4, "num_experts_per_tok": 2}
    | {"moe_intermediate_size": 32, "decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True},
    "gemma": COMMON | {"model_type": "gemma", "head_dim": 32},
    "gemma2": COMMON | {"model_type": "gemma2", "head_dim": 32, "query_pre_attn_scalar": 32},
    "gemma3": COMMON
    | {"model_type": "gemma3_text", "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 8}
    | {"num_hidden_layers": 6},
    "phi2": COMMON | {"model_type": "phi", "partial_rotary_factor": 0.5, "layer_norm_eps": 1e-5},
    "phi3": COMMON | {"model_type": "phi3", "partial_rotary_factor": 0.5, "tie_word_embeddings": False},
}
"""Configurations of small models, by llama.cpp's name for the architecture."""


def random_model(config: dict[str, Any]) -> Any:
    """Return mlx-lm's model with random weights from a fixed seed."""
    module = importlib.import_module(f"mlx_lm.models.{config['model_type']}")
    model = module.Model(module.ModelArgs.from_dict(config))
    model.sanitize({}) if config["model_type"] == "gemma3_text" else None  # ties the output to the embeddings
    generator = np.random.default_rng(1)
    weights = [
        (name, mx.array(generator.normal(0, 0.2, array.shape).astype(np.float32)))
        for name, array in tree_flatten(model.parameters())
    ]
    model.load_weights(weights)
    return model


def tensors_of(architecture: str, model: Any) -> dict[str, np.ndarray]:
    """Return the model's tensors as llama.cpp's converter changes them, by their names in a GGUF file."""
    config = CONFIGS[architecture]
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, architecture.upper()), 8)
    tensors: dict[str, np.ndarray] = {}
    for own_name, array in tree_flatten(model.parameters()):
        name = own_name.replace("switch_mlp", "experts")
        value = np.array(array)
        if architecture == "llama" and (".q_proj" in name or ".k_proj" in name):
            heads = config["num_attention_heads" if ".q_proj" in name else "num_key_value_heads"]
            value = value.reshape(heads, 2, -1, value.shape[-1]).swapaxes(1, 2).reshape(value.shape)
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            value = value + 1
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found, name
        tensors[found] = value
    return tensors


def metadata_of(architecture: str) -> dict[str, Any]:
    """Return the metadata that llama.cpp's converter writes for the configuration."""
    config = CONFIGS[architecture]
    norm = "layer_norm_epsilon" if architecture == "phi2" else "layer_norm_rms_epsilon"
    entries = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        f"attention.{norm}": config.get("layer_norm_eps", config["rms_norm_eps"]),
        "rope.freq_base": config["rope_theta"],
    }
    if config["head_dim"] != config["hidden_size"] // config["num_attention_heads"]:
        entries |= {"attention.key_length": config["head_dim"], "attention.value_length": config["head_dim"]}
    if "partial_rotary_factor" in config:
        entries["rope.dimension_count"] = int(config["head_dim"] * config["partial_rotary_factor"])
    if "num_experts" in config:
        entries |= {"expert_count": config["num_experts"], "expert_used_count": config["num_experts_per_tok"]}
        entries["expert_feed_forward_length"] = config["moe_intermediate_size"]
    if "sliding_window" in config:
        entries["attention.sliding_window"] = config["sliding_window"]
    own = {f"{architecture}.{key}": value for key, value in entries.items()}
    return {"general.architecture": architecture, **own, **BYTE_LEVEL}


def write(
    path: Path, metadata: dict[str, Any], tensors: dict[str, np.ndarray], types: dict[str, str] | None = None
) -> Path:
    """Write a GGUF file and return its path. Of tensors in `types`, the arrays are raw blocks in uint8."""
    writer = gguf.GGUFWriter(path, metadata["general.architecture"])
    for key, value in metadata.items():
        if key != "general.architecture":
            writer.add_key_value(key, value, *_types_of(value))
    for name, tensor in tensors.items():
        kind = gguf.GGMLQuantizationType[types[name]] if types and name in types else None
        writer.add_tensor(name, tensor, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _types_of(value: Any) -> tuple[gguf.GGUFValueType, gguf.GGUFValueType | None]:
    if isinstance(value, list):
        return gguf.GGUFValueType.ARRAY, _types_of(value[0])[0]
    if isinstance(value, int) and not isinstance(value, bool):
        return gguf.GGUFValueType.UINT32 if value >= 0 else gguf.GGUFValueType.INT32, None
    return gguf.GGUFValueType.get_type(value), None
