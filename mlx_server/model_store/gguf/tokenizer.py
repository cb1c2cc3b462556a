"""Translation of GGUF metadata to `tokenizer.json` and `tokenizer_config.json`, for byte-level BPE. Pure.

A GGUF file does not describe how text is split before tokens are merged; it only names the rule
(`tokenizer.ggml.pre`). The rules in this file were compared with the tokenizers of transformers. An unknown
name is refused: a rule that is almost right would produce wrong tokens without an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx_server.model_store.gguf.config import UnsupportedGguf

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_DIGITS = {"type": "Digits", "individual_digits": True}
_SPLITS: dict[str, dict[str, Any]] = {
    "gpt-2": _BYTE_LEVEL,
    "smollm": {"type": "Sequence", "pretokenizers": [_DIGITS, _BYTE_LEVEL]},
}
_CONTROL, _USER_DEFINED = 3, 4  # token types of llama.cpp


def tokenizer_json(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of `tokenizer.json`. Raises UnsupportedGguf."""
    if (kind := metadata.get("tokenizer.ggml.model")) != "gpt2":
        raise UnsupportedGguf(f"its tokenizer is {kind!r}; only byte-level BPE ('gpt2') can be converted")
    name = metadata.get("tokenizer.ggml.pre", "")
    split = _SPLITS.get(name)
    if split is None:
        raise UnsupportedGguf(f"its tokenizer splits text by {name!r}; known: {', '.join(_SPLITS)}")
    tokens = metadata["tokenizer.ggml.tokens"]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(metadata),
        "normalizer": None,
        "pre_tokenizer": split,
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ", 1) for merge in metadata["tokenizer.ggml.merges"]],
        },
    }


def _added_tokens(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    tokens = metadata["tokenizer.ggml.tokens"]
    types = metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": i, "content": tokens[i], **flags, "special": kind == _CONTROL}
        for i, kind in enumerate(types)
        if kind in (_CONTROL, _USER_DEFINED)
    ]


def tokenizer_config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of `tokenizer_config.json`, including the chat template."""
    tokens = metadata["tokenizer.ggml.tokens"]
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": metadata.get("llama.context_length"),
        "clean_up_tokenization_spaces": False,
        "add_bos_token": bool(metadata.get("tokenizer.ggml.add_bos_token", False)),
    }
    for key, name in (("bos", "bos"), ("eos", "eos"), ("unknown", "unk"), ("padding", "pad")):
        if (token := metadata.get(f"tokenizer.ggml.{key}_token_id")) is not None:
            config[f"{name}_token"] = tokens[token]
    if template := metadata.get("tokenizer.chat_template"):
        config["chat_template"] = template
    return config
