"""Gemma 3 as an encoder (EmbeddingGemma): mlx-lm's layers, but with attention in both directions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.gemma3_text import Gemma3Model, ModelArgs

from mlx_server.engine.embeddings.architectures import decoder
from mlx_server.engine.embeddings.architectures.attention import (
    LayeredEncoder,
    visible_keys,
    visible_within,
)

rename = decoder.rename


class Gemma3(LayeredEncoder):
    """Computes hidden states (batch, length, hidden) of token ids. The argument `types` (token types) of a
    call has no effect.

    In every n-th layer, a token attends to all tokens of its text; `_pattern` reads n from the model's
    config.json. In the other layers, a token attends to the tokens that are at most half of the config's
    `sliding_window` away.
    """

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        self.model = Gemma3Model(args)

    def padded(
        self, ids: mx.array, mask: mx.array | None, types: mx.array | None = None
    ) -> Iterator[mx.array]:
        """Yield the hidden states (batch, length, hidden) of padded texts after each layer, and then, as the
        result, the last layer's states normalized.

        `ids` (batch, length) are token ids. `mask`, of the same shape, is True or 1 for the tokens of texts
        and False or 0 for the padding behind them; None if there is no padding. `types` (token types) have no
        effect, because Gemma 3 has none.
        """
        body = self.model
        x = body.embed_tokens(ids)
        x = x * mx.array(body.args.hidden_size**0.5, mx.float32).astype(x.dtype)
        visible = visible_keys(mask)
        near = visible_within(visible, ids.shape[1], body.window_size // 2)
        for layer in body.layers:
            x = layer(x, near if layer.self_attn.is_sliding else visible)
            yield x
        yield body.norm(x)


def create(config: Mapping[str, Any]) -> nn.Module:
    """Return the encoder that `config`, a parsed config.json, describes. Raises ValueError or KeyError if
    `config` is not supported.
    """
    ropes = config.get("rope_parameters") or {}
    args = ModelArgs.from_dict(dict(config))
    args.sliding_window_pattern = _pattern(config)
    args.rope_theta = _theta(ropes, "full_attention", args.rope_theta)
    args.rope_local_base_freq = _theta(ropes, "sliding_attention", args.rope_local_base_freq)
    return Gemma3(args)


def _theta(ropes: Mapping[str, Any], kind: str, default: float) -> float:
    """Return the base of the rotary positions for layers of this `kind` from `ropes`, the `rope_parameters`
    of a config.json. Return `default` if they do not name one; older configurations have no
    `rope_parameters`.
    """
    return float((ropes.get(kind) or {}).get("rope_theta") or default)


def _pattern(config: Mapping[str, Any]) -> int:
    """Return n if every n-th layer has full attention, and the other layers a sliding window.

    Raises ValueError if the layers follow no such pattern.
    """
    kinds = config.get("layer_types")
    if not kinds:
        return int(config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or 6)
    full = [kind == "full_attention" for kind in kinds]
    pattern = full.index(True) + 1 if True in full else len(full) + 1
    if full != [(i + 1) % pattern == 0 for i in range(len(full))]:
        raise ValueError("its layer_types follow no pattern")
    return pattern
