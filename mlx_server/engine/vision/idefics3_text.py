"""The text model of Idefics 3 and SmolVLM, for which mlx-lm has no module. It is built from
mlx-lm's Llama.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import llama
from mlx_lm.models.base import BaseModelArgs

_TEXT_PREFIXES = ("text_model.", "language_model.")


@dataclass
class ModelArgs(BaseModelArgs):
    """The configuration of an Idefics 3 or SmolVLM model. `text_config` is the configuration of its text
    model, a Llama.
    """

    model_type: str
    text_config: dict[str, Any]


class Model(nn.Module):
    """The text model (a Llama) of an Idefics 3 or SmolVLM model."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        self.args, self.model_type = args, args.model_type
        defaults = {"num_attention_heads": 32, "num_hidden_layers": 32, "rms_norm_eps": 1e-5}
        text = {**defaults, **args.text_config, "model_type": "llama"}
        if text.get("head_dim") is None:
            text.pop("head_dim", None)
        self.language_model = llama.Model(llama.ModelArgs.from_dict(text))

    def __call__(
        self, inputs: mx.array, cache: Any = None, input_embeddings: mx.array | None = None
    ) -> mx.array:
        logits: mx.array = self.language_model(inputs, cache=cache, input_embeddings=input_embeddings)
        return logits

    def sanitize(self, weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """Return the weights of the text model, under the names of this module's parameters, without the
        other weights.
        """
        kept = {}
        for name, value in weights.items():
            bare = name.removeprefix("model.")
            prefix = next((prefix for prefix in _TEXT_PREFIXES if bare.startswith(prefix)), None)
            bare = bare.removeprefix(prefix or "").removeprefix("model.")
            if bare.startswith("lm_head."):
                kept[bare] = value
            elif prefix is not None:
                kept[f"model.{bare}"] = value
        return {f"language_model.{name}": value for name, value in self.language_model.sanitize(kept).items()}

    @property
    def layers(self) -> list[Any]:
        return self.language_model.model.layers
