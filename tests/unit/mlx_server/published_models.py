"""The parts of published models' config.json that determine memory, and headers of matching weight files."""

from __future__ import annotations

import math
from typing import Any

CONFIGS: dict[str, dict[str, Any]] = {
    "Llama-3.2-1B": {
        "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256,
        "max_position_embeddings": 131072, "tie_word_embeddings": True,
    },
    "Llama-3.1-8B": {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
        "max_position_embeddings": 131072, "tie_word_embeddings": False,
    },
    "Llama-3.1-70B": {
        "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
        "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256,
        "max_position_embeddings": 131072, "tie_word_embeddings": False,
    },
    "Qwen2.5-7B": {
        "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
        "max_position_embeddings": 32768, "sliding_window": 131072, "use_sliding_window": False,
        "tie_word_embeddings": False,
    },
    "Qwen2.5-32B": {
        "model_type": "qwen2", "hidden_size": 5120, "intermediate_size": 27648, "num_hidden_layers": 64,
        "num_attention_heads": 40, "num_key_value_heads": 8, "vocab_size": 152064,
        "max_position_embeddings": 32768, "tie_word_embeddings": False,
    },
    "Qwen3-4B": {
        "model_type": "qwen3", "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        "max_position_embeddings": 40960, "tie_word_embeddings": True,
    },
    "Qwen3-8B": {
        "model_type": "qwen3", "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        "max_position_embeddings": 40960, "tie_word_embeddings": False,
    },
    "Mistral-7B-v0.3": {
        "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32768, "sliding_window": None,
        "max_position_embeddings": 32768, "tie_word_embeddings": False,
    },
    "gemma-2-9b": {
        "model_type": "gemma2", "hidden_size": 3584, "intermediate_size": 14336, "num_hidden_layers": 42,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256, "vocab_size": 256000,
        "sliding_window": 4096, "max_position_embeddings": 8192, "tie_word_embeddings": True,
    },
    "gemma-3-4b": {
        "model_type": "gemma3",
        "text_config": {
            "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240,
            "num_hidden_layers": 34, "sliding_window": 1024,
            "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208,
            "tie_word_embeddings": True,
        },
    },
    "SmolLM2-135M": {
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
        "max_position_embeddings": 8192, "tie_word_embeddings": True,
    },
    "SmolLM2-1.7B": {
        "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24,
        "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 49152,
        "max_position_embeddings": 8192, "tie_word_embeddings": True,
    },
    "Phi-3-mini-4k": {
        "model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064, "sliding_window": 2047,
        "max_position_embeddings": 4096, "tie_word_embeddings": False,
    },
    "phi-4": {
        "model_type": "phi3", "hidden_size": 5120, "intermediate_size": 17920, "num_hidden_layers": 40,
        "num_attention_heads": 40, "num_key_value_heads": 10, "vocab_size": 100352, "sliding_window": None,
        "max_position_embeddings": 16384, "tie_word_embeddings": False,
    },
}  # fmt: skip


def headers(
    config: dict[str, Any], dtype: str = "BF16", bits: int = 0, group_size: int = 64
) -> dict[str, Any]:
    """Return the headers of the weight files of such a model, with a Llama's shapes (fused for phi3). With
    `bits`, they are in mlx-lm's quantized form.
    """
    found: dict[str, Any] = {}
    for name, shape in _shapes(config).items():
        if bits and len(shape) == 2:
            rows, columns = shape
            _add(found, f"{name}.weight", "U32", (rows, columns * bits // 32))
            _add(found, f"{name}.scales", dtype, (rows, columns // group_size))
            _add(found, f"{name}.biases", dtype, (rows, columns // group_size))
        else:
            _add(found, f"{name}.weight", dtype, shape)
    return found


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    own = config.get("text_config", config)
    hidden, inner, heads = own["hidden_size"], own["intermediate_size"], own["num_attention_heads"]
    head_dim = own.get("head_dim") or hidden // heads
    queries, keys = heads * head_dim, own["num_key_value_heads"] * head_dim
    prefix = "language_model.model" if "text_config" in config else "model"
    shapes: dict[str, tuple[int, ...]] = {f"{prefix}.embed_tokens": (own["vocab_size"], hidden)}
    if not own["tie_word_embeddings"]:
        shapes["lm_head"] = (own["vocab_size"], hidden)
    for layer in range(own["num_hidden_layers"]):
        at = f"{prefix}.layers.{layer}"
        if own["model_type"] == "phi3":
            shapes[f"{at}.self_attn.qkv_proj"] = (queries + 2 * keys, hidden)
            shapes[f"{at}.mlp.gate_up_proj"] = (2 * inner, hidden)
        else:
            shapes[f"{at}.self_attn.q_proj"] = (queries, hidden)
            shapes[f"{at}.self_attn.k_proj"] = (keys, hidden)
            shapes[f"{at}.self_attn.v_proj"] = (keys, hidden)
            shapes[f"{at}.mlp.gate_proj"] = shapes[f"{at}.mlp.up_proj"] = (inner, hidden)
        shapes[f"{at}.self_attn.o_proj"] = (hidden, queries)
        shapes[f"{at}.mlp.down_proj"] = (hidden, inner)
        shapes[f"{at}.input_layernorm"] = shapes[f"{at}.post_attention_layernorm"] = (hidden,)
    shapes[f"{prefix}.norm"] = (hidden,)
    return shapes


def _add(found: dict[str, Any], name: str, dtype: str, shape: tuple[int, ...]) -> None:
    start = found[next(reversed(found))]["data_offsets"][1] if found else 0
    size = math.prod(shape) * {"U32": 4, "F32": 4, "BF16": 2, "F16": 2}[dtype]
    found[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, start + size]}
