"""Forecast how much memory a model's vision tower takes to compute an image, in addition to its weights.
Pure.

A tower is computed one layer at a time. The forecast is an upper bound: the measured peaks of random towers
of all served families (MLX 0.32, Linux, 256 and 1,024 patches) were 0.63 to 0.88 times the forecast.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_server.memory_forecast.weights import Arithmetic

_HIDDEN_ARRAYS, _INNER_ARRAYS = 22, 2.5
"""How many arrays of the hidden state's width, and how many of the feed-forward's, are in memory at
one time.
"""
_PIXEL_ARRAYS = 3
"""How many copies of the pixels are in memory: as the processor gives them, converted, and arranged for the
first convolution.
"""
_MOST_FUSED_HEAD_DIM = 128
_HIDDEN, _HEADS, _PATCH = 1024, 16, 14
"""The sizes that a configuration may leave out, as in the first model of its family."""
_PLAIN_PIXELS = frozenset({"llava"})
"""Families whose pixels stay in 32 bits, so that everything in their tower is computed in 32 bits."""


@dataclass(frozen=True)
class TowerShape:
    """The sizes of a vision tower: hidden state, feed-forward, number of attention heads, and the side of a
    patch in pixels.

    `number_bytes` is the width of its numbers. With `fused_attention`, attention scores are never stored.
    """

    hidden: int
    inner: int
    heads: int
    patch: int
    number_bytes: int
    fused_attention: bool

    def bytes(self, pixels: Sequence[int]) -> int:
        """Return the peak bytes that the tower takes for one image.

        `pixels` is the shape in which the model's processor gives the image: (patches, values), (tiles,
        patches, values), or a shape that ends with channels, height and width.
        """
        if len(pixels) < 2:
            return 0
        tiles, patches = self._patches(pixels)
        numbers = tiles * patches * (_HIDDEN_ARRAYS * self.hidden + _INNER_ARRAYS * self.inner)
        if not (self.fused_attention and self.hidden <= self.heads * _MOST_FUSED_HEAD_DIM):
            numbers += tiles * self.heads * patches**2
        return int(numbers) * self.number_bytes + _PIXEL_ARRAYS * 4 * math.prod(pixels)

    def _patches(self, pixels: Sequence[int]) -> tuple[int, int]:
        """Return into how many tiles an image is divided, and how many patches each tile has. Tiles do not
        attend to each other. `pixels` is the shape of the processed image: (patches, values), (tiles,
        patches, values), or a shape that ends with channels, height and width.
        """
        if len(pixels) < 4:
            return math.prod(pixels[:-2]), pixels[-2]
        height, width = pixels[-2:]
        return math.prod(pixels[:-3]), max(height // self.patch, 1) * max(width // self.patch, 1)


def tower_shape(config: Mapping[str, Any], arithmetic: Arithmetic, number_bytes: int) -> TowerShape:
    """Return the shape of a model's vision tower. `arithmetic` says how MLX computes on the machine: whether
    in 32 bits, and whether attention scores are stored. `number_bytes` is the width of the numbers in the
    model's weights; the tower is computed in this width unless 32 bits are required.

    Raises KeyError, TypeError or ValueError if the configuration is invalid.
    """
    own = config["vision_config"]
    hidden = int(own.get("embed_dim") or own.get("hidden_size") or _HIDDEN)
    inner = int(own.get("intermediate_size") or float(own.get("mlp_ratio") or 4) * hidden)
    heads = int(own.get("num_heads") or own.get("num_attention_heads") or _HEADS)
    in_32_bits = arithmetic.dense_float32 or config.get("model_type") in _PLAIN_PIXELS
    return TowerShape(
        hidden,
        inner,
        heads,
        int(own.get("patch_size") or _PATCH),
        4 if in_32_bits else number_bytes,
        arithmetic.fused_attention,
    )
