"""Create a folder with a large Llama model of random weights, in several weight files (shards)."""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

HIDDEN, INTERMEDIATE, HEADS = 2048, 8192, 16
LAYERS_PER_SHARD = 4
BLOCK_NUMBERS = 16 * 1024 * 1024
WIDTHS = {"F32": 4, "BF16": 2}
SHRUNK = 0.02  # the usual spread of weights, so that nothing overflows

Shapes = dict[str, tuple[int, ...]]


def layers_for(size_bytes: float, dtype: str, vocabulary: int) -> int:
    """Return how many layers, at least one, make a model of about `size_bytes`."""
    of_layer = sum(math.prod(shape) for shape in _layer(0).values()) * WIDTHS[dtype]
    return max(1, round((size_bytes - vocabulary * HIDDEN * WIDTHS[dtype]) / of_layer))


def make(folder: Path, size_bytes: float, dtype: str, like: Path) -> int:
    """Write a Llama model with about `size_bytes` bytes of random weights into the new folder `folder`. Its
    tokenizer, and its configuration apart from the sizes, are those of the Llama model in the folder `like`.
    Return the size of the weights in bytes.

    `dtype` is F32 or BF16. All tensors are filled from one block of random numbers, because the values do not
    affect the time of a load.
    """
    config = json.loads((like / "config.json").read_text())
    layers = layers_for(size_bytes, dtype, config["vocab_size"])
    config |= {"hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_hidden_layers": layers}
    config |= {"num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": HIDDEN // HEADS}
    config |= {"tie_word_embeddings": True}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(like / name, folder / name)
    block = _block(dtype)
    shards = list(_shards(layers, config["vocab_size"]))
    names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    return sum(_write(folder / n, shapes, dtype, block) for n, shapes in zip(names, shards, strict=True))


def _layer(number: int) -> Shapes:
    start = f"model.layers.{number}."
    attention: Shapes = {f"{start}self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkvo"}
    return attention | {
        f"{start}mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
        f"{start}mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
        f"{start}mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
        f"{start}input_layernorm.weight": (HIDDEN,),
        f"{start}post_attention_layernorm.weight": (HIDDEN,),
    }


def _shards(layers: int, vocabulary: int) -> Iterator[Shapes]:
    shapes: Shapes = {"model.embed_tokens.weight": (vocabulary, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for number in range(layers):
        shapes |= _layer(number)
        if number % LAYERS_PER_SHARD == LAYERS_PER_SHARD - 1 or number == layers - 1:
            yield shapes
            shapes = {}


def _block(dtype: str) -> memoryview:
    numbers = np.random.default_rng(0).standard_normal(BLOCK_NUMBERS, dtype=np.float32) * np.float32(SHRUNK)
    if dtype == "BF16":  # a bfloat16 is the upper half of a float32
        return (numbers.view(np.uint32) >> 16).astype(np.uint16).data.cast("B")
    return numbers.data.cast("B")


def _write(path: Path, shapes: Shapes, dtype: str, block: memoryview) -> int:
    """Write one safetensors file, with tensors of these shapes filled from `block`. Return the size of its
    tensors in bytes.
    """
    header: dict[str, dict[str, Any]] = {}
    offset = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * WIDTHS[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for entry in header.values():
            begin, end = entry["data_offsets"]
            for start in range(0, end - begin, len(block)):
                file.write(block[: min(len(block), end - begin - start)])
    return offset
