"""Forecast how much memory a model's KV cache takes, from its config.json. Pure.

mlx-lm's batch caches grow by 256 tokens, and every row of a batch is padded on the left to the length of the
longest, so the bytes are those of the longest row times the number of rows. Running answers of different
lengths take less if they are in groups (decision 37), but prompts that are read together do not. A layer of
unknown layout counts as full attention, so that the forecast is too high rather than too low. Only full
attention is ever quantized.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_server.memory_forecast.kv_quantization import KvQuantization
from mlx_server.memory_forecast.text_config import text_config

GROWTH_TOKENS = 256

# Families whose mlx-lm model uses rotating caches for sliding-window layers. Those of gemma2 and qwen2 do
# not.
_ROTATES_BY_LAYER_TYPES = frozenset(
    {
        *("afmoe", "exaone4", "exaone_moe", "gemma3n", "gemma3n_text", "gemma4", "gemma4_text", "gpt_oss"),
        *("llama", "ministral3", "mistral", "mistral3", "olmo3"),
    }
)
_ROTATES_BY_PATTERN = frozenset({"cohere2", "gemma3", "gemma3_text"})
_PATTERN_DEFAULTS = {"gemma3": 6, "gemma3_text": 6, "cohere2": 4}
LATENT = frozenset(
    {
        *("deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa", "joyai_llm_flash"),
        *("kimi_k2", "kimi_linear", "longcat_flash"),
    }
)
"""Families whose mlx-lm model caches the latent of multi-head latent attention, not the heads."""

_PROJECTION = re.compile(r"layers\.(\d+)\.[\w.]*?([kv])_proj\.weight$")


@dataclass(frozen=True)
class KvShape:
    """How many layers of a model store keys and values in full, how many in a sliding window, and how much
    each layer stores.

    `layer_floats` is how many numbers one layer stores for the keys and values of one token. `state_floats`
    is how many numbers all layers without KV (linear attention, convolutions) together store for one request.
    `number_bytes` is the width of an unquantized number. `quantized` says in how many bits layers with full
    attention store keys and values; None means that these are not quantized.
    """

    full_layers: int
    sliding_layers: int
    window_tokens: int
    layer_floats: float
    state_floats: int
    number_bytes: int
    quantized: KvQuantization | None = None

    @property
    def token_bytes(self) -> int:
        """Return by how many bytes the cache of one request grows per token, while no sliding window is
        full.
        """
        sliding = self.sliding_layers * self.layer_floats * self.number_bytes
        return int(self.full_layers * self.full_layer_bytes + sliding)

    @property
    def full_layer_bytes(self) -> float:
        """Return the bytes that one token takes in one layer of full attention."""
        number = self.quantized.bytes_per_number(self.number_bytes) if self.quantized else self.number_bytes
        return self.layer_floats * number

    def bytes(self, rows: int, tokens: int, step_tokens: int = 0) -> int:
        """Return the bytes of the KV cache of a batch of `rows` requests whose longest has `tokens` tokens.

        A sliding window also holds the `step_tokens` tokens of a prefill step.
        """
        if rows <= 0:
            return 0
        grown = -(-max(tokens, 1) // GROWTH_TOKENS) * GROWTH_TOKENS
        windowed = min(grown, self.window_tokens + step_tokens)
        floats = self.sliding_layers * windowed * self.layer_floats + self.state_floats
        return int(rows * (self.full_layers * grown * self.full_layer_bytes + floats * self.number_bytes))


def kv_shape(
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    number_bytes: int,
    quantization: KvQuantization | None = None,
) -> KvShape:
    """Return the shape of a model's KV cache. Raises KeyError, TypeError or ValueError if the configuration
    lacks a size that is needed.

    `shapes` has the shapes of the weights by name. If it has the projections of keys and values, their shapes
    are used instead of the configuration's head counts. `number_bytes` is the width of an unquantized number.
    """
    own = text_config(config)
    layers = int(own.get("num_hidden_layers") or own.get("n_layers") or own["n_layer"])
    projected = _projected_floats(shapes)
    sliding = _sliding_layers(own, layers)
    stateful = _stateful_layers(own, layers, has_keys=projected > 0)
    return KvShape(
        full_layers=max(layers - sliding - stateful, 0),
        sliding_layers=sliding,
        window_tokens=int(own.get("sliding_window") or 0),
        layer_floats=_latent_floats(own) or projected or _head_floats(own),
        state_floats=stateful * _state_floats(own),
        number_bytes=number_bytes,
        quantized=quantization if quantization and _is_quantized(own, quantization, sliding) else None,
    )


def head_dim(own: Mapping[str, Any]) -> int:
    """Return the dimension of one attention head. `own` is the model's flat configuration (see
    `text_config`).
    """
    heads = int(own.get("num_attention_heads") or own.get("n_head") or 1)
    hidden = int(own.get("hidden_size") or own.get("n_embd") or own["d_model"])
    return int(own.get("head_dim") or hidden // heads)


def _is_quantized(own: Mapping[str, Any], quantization: KvQuantization, sliding_layers: int) -> bool:
    """Return whether `own`, the model's flat configuration (see `text_config`), allows a KV cache with this
    `quantization`. Other obstacles show only when the model is loaded.

    `sliding_layers` is how many layers are known to use a sliding window. If it is 0 but the configuration
    hints at sliding windows, return False, so that the forecast is too high rather than too low.
    """
    hints = "sliding_attention" in (own.get("layer_types") or ()) or own.get("sliding_window_pattern")
    may_slide = hints and not sliding_layers
    latent = isinstance(own.get("kv_lora_rank"), int)
    return not latent and not may_slide and quantization.divides(head_dim(own))


def _sliding_layers(own: Mapping[str, Any], layers: int) -> int:
    family, window = own.get("model_type"), own.get("sliding_window")
    if not isinstance(window, int) or window <= 0:
        return 0
    types = own.get("layer_types")
    if family in _ROTATES_BY_LAYER_TYPES and isinstance(types, list):
        return types.count("sliding_attention")
    if family in _ROTATES_BY_PATTERN:
        pattern = own.get("sliding_window_pattern") or _PATTERN_DEFAULTS.get(str(family), 1)
        return layers - layers // int(pattern)
    return 0


def _stateful_layers(own: Mapping[str, Any], layers: int, has_keys: bool) -> int:
    """Return how many of the model's `layers` store a state instead of keys and values. `own` is the model's
    flat configuration (see `text_config`). `has_keys` is True if the model's weights project keys and values,
    which is a sign of attention, except in RWKV: its layers have such projections, and store a state.
    """
    types = own.get("layer_types")
    if isinstance(types, list):
        return sum(kind in ("linear_attention", "conv", "mamba", "recurrent") for kind in types)
    if every := own.get("full_attention_interval"):
        return layers - layers // int(every)
    attends = has_keys and not str(own.get("model_type")).startswith("rwkv")
    return 0 if attends or own.get("num_attention_heads") or own.get("n_head") else layers


def _state_floats(own: Mapping[str, Any]) -> int:
    """Return how many 16-bit numbers one layer without KV (linear attention, a convolution) stores per
    request; a float32 number counts twice. `own` is the model's flat configuration (see `text_config`).
    """
    heads = int(own.get("linear_num_value_heads") or 0)
    if heads:
        keys = int(own.get("linear_num_key_heads") or heads) * int(own["linear_key_head_dim"])
        values = heads * int(own["linear_value_head_dim"])
        conv = int(own.get("linear_conv_kernel_dim") or 4) * (2 * keys + values)
        return 2 * values * int(own["linear_key_head_dim"]) + conv
    inner = int(own.get("intermediate_size") or 2 * own["hidden_size"])
    return 2 * inner * int(own.get("state_size") or own.get("conv_L_cache") or 16)


def _latent_floats(own: Mapping[str, Any]) -> int:
    """Return how many numbers a layer of multi-head latent attention stores for a token; 0 if the model has
    no such attention. `own` is the model's flat configuration (see `text_config`).

    A model of a family in LATENT stores only the latent (the compressed form of keys and values) and the
    rotary part of the key; a model of any other family stores the keys and values of all heads.
    """
    rank = own.get("kv_lora_rank")
    if not isinstance(rank, int):
        return 0
    rope = int(own.get("qk_rope_head_dim") or 64)
    if own.get("model_type") in LATENT:
        return rank + rope
    heads = int(own["num_attention_heads"])
    key = int(own.get("qk_nope_head_dim") or 128) + rope
    return heads * (key + int(own.get("v_head_dim") or key))


def _projected_floats(shapes: Mapping[str, tuple[int, ...]]) -> float:
    """Return how many numbers the keys and values of one token have in a layer, as the mean of all layers,
    from the `shapes` of the key and value projections; 0 if these are fused or missing.
    """
    rows = {"k": 0, "v": 0}
    layers: set[str] = set()
    for name, shape in shapes.items():
        if (match := _PROJECTION.search(name)) and len(shape) == 2:
            rows[match[2]] += shape[0]
            layers.add(match[1])
    return sum(rows.values()) / len(layers) if rows["k"] and rows["v"] else 0


def _head_floats(own: Mapping[str, Any]) -> int:
    heads = int(own.get("num_attention_heads") or own.get("n_head") or 1)
    return 2 * int(own.get("num_key_value_heads") or heads) * head_dim(own)
