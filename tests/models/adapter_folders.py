"""Small models with random weights and adapters for them, as mlx-lm and PEFT write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

HIDDEN, INNER, HEADS, KV_HEADS, LAYERS, VOCABULARY = 64, 128, 4, 2, 3, 128
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "num_hidden_layers": LAYERS,
    "vocab_size": VOCABULARY,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "eos_token_id": 2,
}


def shapes_of(config: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return the shapes of the layers in a block of a model of the Llama family, from its configuration."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    width = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = config["num_attention_heads"] * width, config["num_key_value_heads"] * width
    return {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }


SHAPES = shapes_of(CONFIG)
"""The weight of each layer in a block of the small model: outputs, inputs."""


def write_adapter_for(model: Path, folder: Path, seed: int = 2, strength: float = 0.05) -> Path:
    """Write an adapter for all layers in the last half of a Llama `model`; return its folder."""
    config = json.loads((model / "config.json").read_text())
    count, shapes = config["num_hidden_layers"], shapes_of(config)
    return write_adapter(
        folder, tuple(shapes), blocks=count // 2, count=count, shapes=shapes, seed=seed, strength=strength
    )


def write_base(folder: Path, seed: int = 1, **config: Any) -> Path:
    """Write a model of the Llama family with random weights, without a tokenizer; return its folder."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)

    def values(*shape: int) -> Any:
        return (random.standard_normal(shape) * 0.1).astype(np.float32)

    weights = {
        "model.embed_tokens.weight": values(VOCABULARY, HIDDEN),
        "lm_head.weight": values(VOCABULARY, HIDDEN),
    }
    weights["model.norm.weight"] = np.ones(HIDDEN, np.float32)
    for n in range(LAYERS):
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{n}.{name}.weight"] = np.ones(HIDDEN, np.float32)
        weights |= {f"model.layers.{n}.{name}.weight": values(*shape) for name, shape in SHAPES.items()}
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def write_adapter(
    folder: Path,
    layers: tuple[str, ...] = ("self_attn.q_proj", "mlp.down_proj"),
    *,
    method: str = "lora",
    rank: int = 4,
    scale: float = 8.0,
    blocks: int = 2,
    seed: int = 2,
    shapes: dict[str, tuple[int, int]] | None = None,
    count: int = LAYERS,
    strength: float = 0.2,
) -> Path:
    """Write an adapter for the last `blocks` of `count` blocks in mlx-lm's form; return its folder.
    `shapes` has the weight of each layer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random, known = np.random.default_rng(seed), shapes or SHAPES
    tensors: dict[str, Any] = {}
    for n in range(count - blocks, count):
        for layer in layers:
            outputs, inputs = known[layer]
            name = f"model.layers.{n}.{layer}"
            tensors[f"{name}.lora_a"] = (random.standard_normal((inputs, rank)) * strength).astype(np.float32)
            tensors[f"{name}.lora_b"] = (random.standard_normal((rank, outputs)) * strength).astype(
                np.float32
            )
            if method == "dora":
                tensors[f"{name}.m"] = (1 + random.random(outputs)).astype(np.float32)
    save_file(tensors, folder / "adapters.safetensors")
    parameters = {"rank": rank, "scale": scale, "dropout": 0.0, "keys": list(layers)}
    config = {"fine_tune_type": method, "num_layers": blocks, "lora_parameters": parameters}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def as_peft(folder: Path, target: Path) -> Path:
    """Write the adapter in `folder`, which is in mlx-lm's form, as PEFT does; return `target`."""
    from safetensors.numpy import load_file

    target.mkdir(parents=True)
    names = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight", "m": "lora_magnitude_vector"}
    tensors: dict[str, Any] = {}
    for name, values in load_file(folder / "adapters.safetensors").items():
        layer, _, part = name.rpartition(".")
        tensors[f"base_model.model.{layer}.{names[part]}"] = np.ascontiguousarray(values.T)
    save_file(tensors, target / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    own = config["lora_parameters"]
    (target / "adapter_config.json").write_text(
        json.dumps(
            {
                "peft_type": "LORA",
                "r": own["rank"],
                "lora_alpha": own["scale"] * own["rank"],
                "target_modules": sorted({key.rsplit(".", 1)[-1] for key in own["keys"]}),
                "use_dora": config["fine_tune_type"] == "dora",
                "bias": "none",
            }
        )
    )
    return target
