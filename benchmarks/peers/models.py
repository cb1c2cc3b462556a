"""Prepare the model of a comparison in the forms that peers read: safetensors, a GGUF file, and a smaller
draft model.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.environments import PEERS

DRAFT_LAYERS = 6
"""How many of the model's layers the draft model has: a fifth of SmolLM2-135M's 30."""


@dataclass(frozen=True)
class BenchModel:
    """One model in several forms: a folder of safetensors, a float32 GGUF file, and a smaller draft model."""

    folder: Path
    gguf: Path | None = None
    draft: Path | None = None


def prepared(folder: Path, cache: Path | None = None) -> BenchModel:
    """Return the model in `folder` together with a GGUF file and a smaller draft model, which are both made
    from its safetensors file.

    Both are written only once, to a subfolder of `cache`, which by default is `models` in PEERS, the folder
    of the peers' environments. Raises ImportError if a package for the conversion is missing, and ValueError
    if the model cannot be converted to GGUF.
    """
    weights = folder / "model.safetensors"
    changed = f"{weights.stat().st_size:x}-{weights.stat().st_mtime_ns:x}"
    made = (cache or PEERS / "models") / f"{folder.name}-{changed}"
    made.mkdir(parents=True, exist_ok=True)
    gguf, draft = made / "model-f32.gguf", made / f"draft-{DRAFT_LAYERS}-layers"
    if not gguf.exists():
        write_gguf(folder, gguf)
    if not draft.exists():
        write_draft(folder, draft, DRAFT_LAYERS)
    return BenchModel(folder, gguf, draft)


def write_draft(folder: Path, target: Path, layers: int) -> None:
    """Write a draft model to the folder `target`: the first `layers` layers of the model in `folder`, and its
    embeddings, norm and tokenizer.
    """
    from safetensors import safe_open
    from safetensors.numpy import save_file

    made = target.with_name(f"{target.name}.{os.getpid()}")
    made.mkdir(parents=True)
    for file in folder.iterdir():
        if file.suffix == ".json" and file.name not in ("config.json", "vestal-model.json"):
            shutil.copy2(file, made / file.name)
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": layers}
    (made / "config.json").write_text(json.dumps(config, indent=1))
    with safe_open(folder / "model.safetensors", "np") as weights:
        kept = {name: weights.get_tensor(name) for name in weights.keys() if _layer_of(name) < layers}  # noqa: SIM118
    save_file(kept, made / "model.safetensors", {"format": "mlx"})
    made.replace(target)


def write_gguf(folder: Path, target: Path) -> None:
    """Write a llama model in float32, with its byte-level tokenizer, as a GGUF file for llama.cpp. Raises
    ValueError if the model is of another family or has an unknown tensor.
    """
    import gguf
    from safetensors import safe_open

    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] != "llama":
        raise ValueError(
            f"Only models of the family llama are written as GGUF, and not {config['model_type']}."
        )
    made = target.with_name(f"{target.name}.{os.getpid()}")
    writer = gguf.GGUFWriter(made, "llama")
    heads, keys = config["num_attention_heads"], config["num_key_value_heads"]
    writer.add_name(folder.name)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(keys)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    _add_tokenizer(writer, folder, config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    with safe_open(folder / "model.safetensors", "np") as weights:
        for name in weights.keys():  # noqa: SIM118
            tensor = weights.get_tensor(name).astype(np.float32)
            if name.endswith("q_proj.weight"):
                tensor = interleaved(tensor, heads)
            if name.endswith("k_proj.weight"):
                tensor = interleaved(tensor, keys)
            own_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if own_name is None:
                raise ValueError(f"llama.cpp has no name for the tensor {name}.")
            writer.add_tensor(own_name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    made.replace(target)


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """Return a matrix in which the two halves of each head's rows are interleaved, as llama.cpp's rotary
    embedding needs them.
    """
    return rows.reshape(heads, 2, -1, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def _add_tokenizer(writer: Any, folder: Path, config: dict[str, Any]) -> None:
    """Add the tokenizer and the chat template of the model in `folder` to the GGUF file that `writer`, a
    gguf.GGUFWriter, writes. The tokenizer is described as a byte-level BPE tokenizer that splits text as
    SmolLM's does. `config` is the content of the model's `config.json`.
    """
    import gguf

    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    ids = dict(tokenizer["model"]["vocab"])
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    texts = {number: text for text, number in (ids | special).items()}
    tokens = [texts.get(number, f"[PAD{number}]") for number in range(config["vocab_size"])]
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    merges = tokenizer["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [control if number in special.values() else normal for number in range(len(tokens))]
    )
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(config["bos_token_id"])
    eos = config["eos_token_id"]
    writer.add_eos_token_id(eos[0] if isinstance(eos, list) else eos)
    writer.add_add_bos_token(bool(settings.get("add_bos_token", False)))
    if settings.get("chat_template"):
        writer.add_chat_template(settings["chat_template"])


def _layer_of(name: str) -> int:
    """Return the number of the layer to which a tensor belongs; -1 if it belongs to no layer."""
    parts = name.split(".")
    return int(parts[parts.index("layers") + 1]) if "layers" in parts else -1
