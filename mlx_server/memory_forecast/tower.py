"""Forecast what a model's vision tower takes while it computes an image, in addition to its weights. Pure.

A tower is computed a layer at a time. The forecast is a bound: the measured peaks of random towers of all
served families (MLX 0.32, Linux, 256 and 1,024 patches) were 0.63 to 0.88 of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_server.memory_forecast.weights import Arithmetic

_HIDDEN_ARRAYS, _INNER_ARRAYS = 22, 2.5
"""How many arrays of the width of the hidden state, and of the feed-forward, are in memory at one time."""
_PIXEL_ARRAYS = 3
"""The pixels as the processor gives them, converted, and arranged for the first convolution."""
_MOST_FUSED_HEAD_DIM = 128
_HIDDEN, _HEADS, _PATCH = 1024, 16, 14
"""What configurations leave out if it is as in the family's first model."""
_PLAIN_PIXELS = frozenset({"llava"})
"""Families whose pixels stay in 32 bits, and with them all that the tower computes."""


@dataclass(frozen=True)
class TowerShape:
    """The sizes of a tower: hidden state, feed-forward, attention heads, and the side of a patch in pixels.

    `number_bytes` is the width of its numbers. With `fused_attention`, attention scores are never stored.
    """

    hidden: int
    inner: int
    heads: int
    patch: int
    number_bytes: int
    fused_attention: bool

    def bytes(self, pixels: Sequence[int]) -> int:
        """Return the most bytes for an image whose `pixels` have this shape, as its processor makes them.

        The shape is (patches, values), (tiles, patches, values), or ends with channels, height and width.
        """
        if len(pixels) < 2:
            return 0
        tiles, patches = self._patches(pixels)
        numbers = tiles * patches * (_HIDDEN_ARRAYS * self.hidden + _INNER_ARRAYS * self.inner)
        if not (self.fused_attention and self.hidden <= self.heads * _MOST_FUSED_HEAD_DIM):
            numbers += tiles * self.heads * patches**2
        return int(numbers) * self.number_bytes + _PIXEL_ARRAYS * 4 * math.prod(pixels)

    def _patches(self, pixels: Sequence[int]) -> tuple[int, int]:
        """Return the number of tiles, which do not attend to each other, and of patches in each."""
        if len(pixels) < 4:
            return math.prod(pixels[:-2]), pixels[-2]
        height, width = pixels[-2:]
        return math.prod(pixels[:-3]), max(height // self.patch, 1) * max(width // self.patch, 1)


def tower_shape(config: Mapping[str, Any], arithmetic: Arithmetic, number_bytes: int) -> TowerShape:
    """Return the shape of a model's tower, whose weights have `number_bytes` wide numbers.

    Raise KeyError, TypeError or ValueError for an invalid configuration.
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
