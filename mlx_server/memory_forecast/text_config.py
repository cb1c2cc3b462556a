"""Read the configuration of a model's language model, with the sizes that a config.json leaves out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LLAMA = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
}
_LEFT_OUT: Mapping[str, Mapping[str, int]] = {
    "gemma3_text": {
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    "llama": _LLAMA,
    "mistral": _LLAMA
    | {"intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131072},
}
"""By `model_type`: the sizes in Transformers' configuration classes. When Transformers writes a nested
`text_config`, it leaves out each value that equals the one in the class: Gemma 3 4B, as published, names
neither its heads nor its context.
"""
_TEXT_TYPES = {
    "gemma3": "gemma3_text",
    "idefics3": "llama",
    "llava": "llama",
    "mistral3": "mistral",
    "pixtral": "mistral",
    "smolvlm": "llama",
}
"""By the `model_type` of a whole model: that of its `text_config`, if this names none."""
_MAY_BE_LISTS = (
    *("hidden_size", "intermediate_size", "moe_intermediate_size", "num_experts_per_tok"),
    *("num_attention_heads", "num_key_value_heads", "head_dim"),
)
"""Sizes for which some families, such as Gemma 3n, have a list with one number for each layer."""


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's configuration as one flat dict: the settings of its language model, if they are nested
    under `text_config`, are copied to the top level.

    Sizes that a nested configuration leaves out are filled in, if its family is known. A size that is given
    as a list, with one number for each layer, becomes the largest of them.
    """
    own, nested = dict(config), config.get("text_config")
    if isinstance(nested, dict):
        family = nested.get("model_type") or _TEXT_TYPES.get(str(config.get("model_type")))
        own = {**_LEFT_OUT.get(str(family), {}), **config, **nested}
    for name in _MAY_BE_LISTS:
        value = own.get(name)
        if isinstance(value, list) and value and all(type(each) is int for each in value):
            own[name] = max(value)
    return own
