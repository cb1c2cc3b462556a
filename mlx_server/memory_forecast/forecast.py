"""Forecast what a model and its requests take in memory, before any of it is loaded. Pure.

Calibrated on SmolLM2-135M and all-minilm (MLX 0.32, Linux): with 1 or 4 rows, steps of 128 or 512 tokens and
prompts of 1,024 or 3,000, the peak above the weights was within 10 % of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_server.memory_forecast.kv import KvShape, head_dim, kv_shape, text_config
from mlx_server.memory_forecast.kv_quantization import KvQuantization
from mlx_server.memory_forecast.weights import SLICE_BYTES, Arithmetic, Headers, Weights, forecast_weights

MIB = 1024 * 1024
ENGINE_BYTES = 120 * MIB
"""The engine's process without a model: the interpreter, its libraries and their buffers (85 to 125 MiB)."""

_TOKENIZER_FACTOR = 12
"""Memory of a tokenizer (the library's, and the grammars' copy) for each byte of its tokenizer.json."""

_FUSED_HEAD_DIMS = frozenset({64, 80, 96, 128})
_FIRST_REQUEST_TOKENS = 1024
_ENCODER_TOKENS = 2048


@dataclass(frozen=True)
class Widths:
    """The sizes of a layer: hidden state, feed-forward, attention heads, dimension of a head; vocabulary."""

    hidden: int
    inner: int
    heads: int
    head_dim: int
    vocabulary: int


@dataclass(frozen=True)
class Forecast:
    """What a model needs. `kv` is None for a model that only embeds."""

    weights: Weights
    tokenizer_bytes: int
    kv: KvShape | None
    widths: Widths
    step_tokens: int
    context_tokens: int
    fused_attention: bool

    @property
    def resident_bytes(self) -> int:
        """Return the bytes that the model holds while it is loaded."""
        return self.weights.bytes + self.tokenizer_bytes

    @property
    def load_bytes(self) -> int:
        """Return the bytes that must be free to load the model and answer one small request."""
        first = self.requests_bytes(1, min(_FIRST_REQUEST_TOKENS, self.context_tokens))
        return self.resident_bytes + max(self.weights.loading_bytes, first)

    def requests_bytes(self, rows: int, tokens: int) -> int:
        """Return the most bytes that `rows` requests take in addition to the model, if the longest has
        `tokens` tokens.
        """
        if rows <= 0:
            return 0
        if self.kv is None:
            return self._activations(1, _ENCODER_TOKENS, self.context_tokens)
        kv = self.kv.bytes(rows, tokens, self.step_tokens)
        return kv + self._activations(rows, min(self.step_tokens, tokens), tokens)

    def _activations(self, rows: int, step: int, tokens: int) -> int:
        """Return the peak bytes of a prefill step: one layer's activations, scores, and copied KV."""
        widths, number = self.widths, self.weights.number_bytes
        # GELU in encoders keeps one more array of the inner width than a gated feed-forward.
        per_token = 6 * widths.hidden + (4 if self.kv is None else 3) * widths.inner
        floats = rows * step * per_token
        if not (self.fused_attention and widths.head_dim in _FUSED_HEAD_DIMS):
            floats += rows * widths.heads * step * tokens
        layer_kv = 0.0 if self.kv is None else 2 * rows * tokens * self.kv.layer_floats
        logits = 3 * rows * widths.vocabulary * 4
        return int((floats + layer_kv) * number) + logits


def forecast(
    config: Mapping[str, Any],
    headers: Headers,
    arithmetic: Arithmetic,
    *,
    step_tokens: int,
    context_tokens: int,
    embeds: bool = False,
    tokenizer_file_bytes: int = 0,
    kv: KvQuantization | None = None,
) -> Forecast:
    """Return the forecast. Raise KeyError, TypeError or ValueError if the files say too little."""
    weights = forecast_weights(headers, config, arithmetic)
    shapes = {name: tuple(entry["shape"]) for name, entry in headers.items()}
    return Forecast(
        weights=weights,
        tokenizer_bytes=tokenizer_file_bytes * _TOKENIZER_FACTOR,
        kv=None if embeds else kv_shape(config, shapes, weights.number_bytes, kv),
        widths=_widths(text_config(config)),
        step_tokens=step_tokens,
        context_tokens=context_tokens,
        fused_attention=arithmetic.fused_attention,
    )


def forecast_from_weights_only(weights_bytes: int) -> Forecast:
    """Return a forecast for a model whose configuration is unusable: of its weights only."""
    weights = Weights(weights_bytes, SLICE_BYTES, 2)
    return Forecast(weights, 0, None, Widths(0, 0, 0, 0, 0), 1, 1, True)


def _widths(own: Mapping[str, Any]) -> Widths:
    hidden = int(own.get("hidden_size") or own.get("n_embd") or own["d_model"])
    heads = int(own.get("num_attention_heads") or own.get("n_head") or 1)
    inner = int(own.get("intermediate_size") or own.get("n_inner") or 4 * hidden)
    if experts := own.get("num_experts_per_tok"):
        inner = max(inner, int(experts) * int(own.get("moe_intermediate_size") or inner))
    return Widths(hidden, inner, heads, head_dim(own), int(own.get("vocab_size") or 0))
