"""Model folders with random weights, of kinds whose caches cannot be cut; a real model's tokenizer."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models import gemma3_text, mamba

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
VOCABULARY = 49152
ENDS = [2, 0]
WINDOW_TOKENS = 96


def sliding_window() -> tuple[Any, dict[str, Any]]:
    """Return a model with rotating and full caches, as Gemma 3, and its configuration."""
    args = gemma3_text.ModelArgs(
        model_type="gemma3_text", hidden_size=64, num_hidden_layers=4, intermediate_size=128,
        num_attention_heads=2, head_dim=32, vocab_size=VOCABULARY, num_key_value_heads=1,
        sliding_window=WINDOW_TOKENS, sliding_window_pattern=2,
    )  # fmt: skip
    return gemma3_text.Model(args), asdict(args)


def state_space() -> tuple[Any, dict[str, Any]]:
    """Return a model with a state instead of keys and values, as Mamba, and its configuration."""
    args = mamba.ModelArgs(
        model_type="mamba", vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, state_size=8,
        num_hidden_layers=3, conv_kernel=4, use_bias=False, use_conv_bias=True, time_step_rank=4,
    )  # fmt: skip
    return mamba.Model(args), asdict(args)


KINDS = {"sliding-window": sliding_window, "state-space": state_space}


def write(kind: str, folder: Path, tokenizer: Path) -> None:
    """Write a reproducible model of this `kind` and return its folder. `tokenizer` is the folder of its
    tokenizer.
    """
    mx.random.seed(11)
    model, config = KINDS[kind]()
    model.set_dtype(mx.float32)
    folder.mkdir(parents=True)
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    plain = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(
        json.dumps({**plain, "eos_token_id": ENDS, "max_position_embeddings": 4096})
    )
    for name in TOKENIZER_FILES:
        shutil.copy2(tokenizer / name, folder / name)
