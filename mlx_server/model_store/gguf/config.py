"""Translation of GGUF metadata to `config.json`, as mlx-lm reads it, for the `llama` architecture. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_END_OF_GENERATION = ("<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "</s>", "<|end|>")
"""Tokens that end an answer even if `eos_token_id` is another; llama.cpp too knows them by their text."""


class UnsupportedGguf(ValueError):
    """A GGUF file that cannot be converted without loss; the text says why."""


def model_config(metadata: Mapping[str, Any], tied: bool) -> dict[str, Any]:
    """Return the content of `config.json`. Raises UnsupportedGguf.

    `tied` is True if the file has no output matrix, so that the embedding matrix serves as such.
    """
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise UnsupportedGguf(f"its architecture is {architecture!r}; only 'llama' can be converted")
    if any(key.startswith("llama.rope.scaling") for key in metadata):
        raise UnsupportedGguf("it scales its rotary positions, which is not converted")

    def value(key: str) -> Any:
        try:
            return metadata[f"llama.{key}"]
        except KeyError:
            raise UnsupportedGguf(f"its metadata lacks llama.{key}") from None

    heads = value("attention.head_count")
    eos = end_tokens(metadata)
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_act": "silu",
        "hidden_size": value("embedding_length"),
        "intermediate_size": value("feed_forward_length"),
        "num_hidden_layers": value("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.get("llama.attention.head_count_kv", heads),
        "head_dim": value("embedding_length") // heads,
        "rms_norm_eps": value("attention.layer_norm_rms_epsilon"),
        "rope_theta": metadata.get("llama.rope.freq_base", 10000.0),
        "max_position_embeddings": value("context_length"),
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": tied,
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": eos[0] if len(eos) == 1 else eos,
    }


def end_tokens(metadata: Mapping[str, Any]) -> list[int]:
    """Return the ids of the tokens that end an answer; the first is the file's own `eos_token_id`."""
    named = [metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot")]
    tokens = metadata["tokenizer.ggml.tokens"]
    types = metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    known = [i for i, text in enumerate(tokens) if types[i] != 1 and text in _END_OF_GENERATION]
    return list(dict.fromkeys(token for token in (*named, *known) if token is not None))
