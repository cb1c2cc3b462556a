"""Language models that embed: each token attends to the tokens before it, and the last token's hidden state
represents the text.

The layers are mlx-lm's. The padding is behind the text, so that no token of the text attends to it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.base import create_attention_mask

from mlx_server.engine.embeddings.architectures.attention import LayeredEncoder

_MODULES = {"mistral": "llama"}
"""By model type: the module of mlx-lm that implements it, if the module's name differs from the type."""


class Decoder(LayeredEncoder):
    """Computes hidden states (batch, length, hidden) of token ids (batch, length), padded behind each text.

    The arguments `mask` and `types` of a call have no effect: no token attends to the padding, which is
    behind it, and a decoder has no token types. `body` is mlx-lm's language model without its output layer.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.model = body

    def padded(
        self, ids: mx.array, mask: mx.array | None, types: mx.array | None = None
    ) -> Iterator[mx.array]:
        """Yield the hidden states (batch, length, hidden) of padded texts after each layer, and then, as the
        result, the last layer's states normalized.

        `ids` (batch, length) are token ids. `mask`, which marks the padding, has no effect, because no token
        attends to the padding behind it. `types` (token types) have no effect either, because a decoder has
        none.
        """
        x = self.model.embed_tokens(ids)
        causal = create_attention_mask(x, None)
        for layer in self.model.layers:
            x = layer(x, causal, None)
            yield x
        yield self.model.norm(x)


def create(config: Mapping[str, Any]) -> nn.Module:
    """Return the encoder that `config`, a parsed config.json, describes. Raises ValueError or TypeError if
    `config` is not supported.
    """
    model_type = str(config["model_type"])
    theirs = importlib.import_module(f"mlx_lm.models.{_MODULES.get(model_type, model_type)}")
    body = theirs.Model(theirs.ModelArgs.from_dict(dict(config))).model
    if getattr(body, "swa_idx", None) is not None:
        raise ValueError("layers that see only near tokens are not supported in a language model that embeds")
    return Decoder(body)


_BODY = ("embed_tokens.", "layers.", "norm.")


def rename(weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """Return the weights under the names of the encoder's attributes, which begin with `model.`.

    Sentence-transformers saves the weights of language models without this prefix, so they get it here.
    Weights that are not the encoder's, such as those of task heads, keep their names.
    """
    return {f"model.{name}" if name.startswith(_BODY) else name: weight for name, weight in weights.items()}
