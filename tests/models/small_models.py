"""A stand-in for the built-in chat model: its name, tokenizer and architecture, but few and random weights.

It computes a token some fifteen times faster than the real model does. Its text makes no sense, but every
word depends on all tokens before it, so a wrong key, value, position or mask changes the text.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

LAYERS, HEADS, KV_HEADS, HEAD_WIDTH = 4, 2, 1, 64
HIDDEN, INTERMEDIATE = 128, 256
KEYS_AND_VALUES, FLOAT32_BYTES = 2, 4
TOKEN_BYTES = LAYERS * KV_HEADS * HEAD_WIDTH * KEYS_AND_VALUES * FLOAT32_BYTES
"""The keys and values of one token."""

WORD = re.compile("Ġ[A-Za-z]+")
WHITE_SPACE = "ĠĊĉč"  # how the tokenizer writes spaces, line feeds, tabs and carriage returns
FOLDERS = ("smollm2__135m", "all-minilm__latest")


def small_models(real: Path, parent: Path) -> Path:
    """Return a models folder made from the `real` one: a small chat model, and the same embedding model.

    The folder lies in `parent`; its name says which version of this file made it, so that it is made once.
    """
    folder = parent / f"small-models-{zlib.crc32(Path(__file__).read_bytes()):08x}"
    if not folder.exists():
        made = folder.with_suffix(".new")
        shutil.rmtree(made, ignore_errors=True)
        chat, embed = FOLDERS
        _write_chat_model(real / chat, made / chat)
        (made / embed).symlink_to(real / embed)
        made.rename(folder)
    return folder


def shallow_models(real: Path, parent: Path, layers: int) -> Path:
    """Return a models folder in `parent` with the first `layers` layers of the real chat model.

    The embedding model is the real one.
    """
    folder = parent / "shallow-models"
    chat, embed = FOLDERS
    _write_all_but_weights(real / chat, folder / chat, {"num_hidden_layers": layers})
    weights = load_file(real / chat / "model.safetensors")
    kept = {name: values for name, values in weights.items() if _layer(name) < layers}
    _save(folder / chat / "model.safetensors", kept)
    (folder / embed).symlink_to(real / embed)
    return folder


def _layer(tensor: str) -> int:
    """Return the number of the layer that a tensor belongs to, or -1."""
    found = re.match(r"model\.layers\.(\d+)\.", tensor)
    return int(found[1]) if found else -1


def _write_all_but_weights(real: Path, folder: Path, changes: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy2(real / name, folder / name)
    config = json.loads((real / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    manifest = json.loads((real / "vestal-model.json").read_text())
    manifest.pop("weights", None)  # the checksums of the real ones
    (folder / "vestal-model.json").write_text(json.dumps(manifest))


def _write_chat_model(real: Path, folder: Path) -> None:
    shape = {"hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_hidden_layers": LAYERS}
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_WIDTH}
    _write_all_but_weights(real, folder, shape | heads | {"tie_word_embeddings": False})
    _save(folder / "model.safetensors", _weights(_token_factors(folder / "tokenizer.json")))


def _token_factors(tokenizer: Path) -> np.ndarray:
    """Return a factor for each token's logits, as one column.

    Words after a space are likely; a text of them is split into the same tokens again. Other tokens come only
    if a grammar allows no word. White space is least likely, since JSON's grammar allows it without end.
    """
    vocabulary: dict[str, int] = json.loads(tokenizer.read_text())["model"]["vocab"]
    factors = np.full((len(vocabulary), 1), 0.3, dtype=np.float32)
    for token, number in vocabulary.items():
        if WORD.fullmatch(token):
            factors[number] = 3.0
        elif not token.strip(WHITE_SPACE):
            factors[number] = 0.0
    return factors


def _weights(token_factors: np.ndarray) -> dict[str, np.ndarray]:
    """Return weights so large that the layers, and not only the last token, determine the next token."""
    random = np.random.default_rng(11)

    def matrix(rows: int, columns: int, gain: float) -> np.ndarray:
        return (random.standard_normal((rows, columns)) * gain / np.sqrt(columns)).astype(np.float32)

    ones = np.ones(HIDDEN, dtype=np.float32)
    vocabulary = len(token_factors)
    queries, keys = HEADS * HEAD_WIDTH, KV_HEADS * HEAD_WIDTH
    weights = {
        "model.embed_tokens.weight": matrix(vocabulary, HIDDEN, np.sqrt(HIDDEN)),
        "lm_head.weight": token_factors * matrix(vocabulary, HIDDEN, 1.0),
        "model.norm.weight": ones,
    }
    for layer in range(LAYERS):
        attention, mlp = (f"model.layers.{layer}.{part}" for part in ("self_attn", "mlp"))
        weights |= {
            f"{attention}.q_proj.weight": matrix(queries, HIDDEN, 2.0),
            f"{attention}.k_proj.weight": matrix(keys, HIDDEN, 2.0),
            f"{attention}.v_proj.weight": matrix(keys, HIDDEN, 2.0),
            f"{attention}.o_proj.weight": matrix(HIDDEN, queries, 2.0),
            f"{mlp}.gate_proj.weight": matrix(INTERMEDIATE, HIDDEN, 1.5),
            f"{mlp}.up_proj.weight": matrix(INTERMEDIATE, HIDDEN, 1.5),
            f"{mlp}.down_proj.weight": matrix(HIDDEN, INTERMEDIATE, 1.5),
            f"model.layers.{layer}.input_layernorm.weight": ones,
            f"model.layers.{layer}.post_attention_layernorm.weight": ones,
        }
    return weights


def _save(path: Path, weights: dict[str, np.ndarray]) -> None:
    """Write a safetensors file of float32 tensors: https://huggingface.co/docs/safetensors."""
    table, end = {}, 0
    for name, values in weights.items():
        table[name] = {"dtype": "F32", "shape": values.shape, "data_offsets": [end, end + values.nbytes]}
        end += values.nbytes
    header = json.dumps(table).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for values in weights.values():
            file.write(values.tobytes())
