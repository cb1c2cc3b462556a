"""Compute the angles of rotary positions once for all layers of a step, on a CPU.

MLX has no kernel for rotary positions on a CPU, and computes them with some 27 operations, twice in each
layer. In a step of a model with 30 layers, these were 1,600 of 4,650 operations, and took 5 of 66 ms. All
layers rotate by the same angles if their caches hold the same array of positions (`share_offsets`). In a step
of a few answers, the rotation itself is one operation, whose loop MLX has the C compiler translate: it takes
10 µs instead of 14. The results are equal bit for bit on x86-64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import mlx.core as mx
import mlx.nn as nn

from mlx_server.engine.device import computes_on_gpu

MOST_NUMBERS_AT_ONCE = 1 << 14
"""With more numbers, MLX's separate operations are faster, because each computes several numbers at a
time."""


def share_rotations(model: nn.Module) -> None:
    """Make the model's layers share the cosines and sines of the rotary positions on a CPU, so that they are
    computed once in each step instead of in each layer. The model is changed in place.

    On a GPU, do nothing, because MLX has a kernel for rotary positions there.
    """
    if computes_on_gpu():
        return
    for module in model.modules():
        if type(module) is nn.RoPE and not module.traditional:
            module.__class__ = SharedRotation


@dataclass(frozen=True)
class _Angles:
    """The cosines and sines of the angles by which queries and keys are rotated at a step's positions. The
    sines for the first half of a head are negated (see `_computed`).

    `offset` and `key` are the arguments of `_computed` that gave these numbers: `offset` is the position of
    the first token (one number, or an array with one for each row), and `key` is (number of tokens,
    dimensions of a head, RoPE's base, RoPE's scale).
    """

    offset: int | mx.array
    key: tuple[int, int, float, float]
    cos: mx.array
    sin: mx.array

    def fit(self, offset: int | mx.array, key: tuple[int, int, float, float]) -> bool:
        """Return True if these cosines and sines were computed for the same `offset` and `key`. `offset` is
        the position of the first token. If it is an array, with one position for each row, it must be the
        same object. `key` is (number of tokens, dimensions of a head, RoPE's base, RoPE's scale).
        """
        if isinstance(self.offset, int) and isinstance(offset, int):
            return self.offset == offset and self.key == key
        return self.offset is offset and self.key == key


_last: list[_Angles] = []
"""The angles that were computed last. Only the MLX thread uses them."""


class SharedRotation(nn.RoPE):
    """Rotary position embeddings whose angles are computed once for all layers. Each element of the first
    half of a head is rotated together with the same element of the second half (not `traditional`).

    Inputs that are not float32, and heads of which only a part is rotated, are passed to the base class.
    """

    def __call__(self, x: mx.array, offset: int | mx.array = 0) -> mx.array:
        """Rotate `x`, of shape (rows, heads, tokens, dims). `offset` is the position of the first tokens: one
        number for all rows, or an array with one for each row.
        """
        if x.ndim != 4 or x.shape[-1] != self.dims or x.dtype != mx.float32:
            rotated: mx.array = super().__call__(x, offset)
            return rotated
        angles = self._angles(offset, x.shape[2])
        half = self.dims // 2
        swapped = mx.concatenate([x[..., half:], x[..., :half]], axis=-1)
        rotate = _rotated_at_once if x.size <= MOST_NUMBERS_AT_ONCE else _rotated
        return rotate(x, angles.cos, swapped, angles.sin)

    def _angles(self, offset: int | mx.array, tokens: int) -> _Angles:
        key = (tokens, self.dims, self.base, self.scale)
        if not _last or not _last[0].fit(offset, key):
            _last[:] = [_computed(offset, key)]
        return _last[0]


def _rotated(x: mx.array, cos: mx.array, swapped: mx.array, sin: mx.array) -> mx.array:
    return x * cos + swapped * sin


_rotated_at_once = partial(mx.compile, shapeless=True)(_rotated)


def _computed(offset: int | mx.array, key: tuple[int, int, float, float]) -> _Angles:
    """Compute the cosines and sines of the rotary positions, with the same operations as `mx.fast.rope` on a
    CPU, in the same order and with the same precision. The sines for the first half of a head are negated, so
    that the rotated `x` is `x * cos + swapped * sin`. In `swapped`, the two halves of `x` are exchanged.

    `offset` is the position of the first token: one number for all rows, or an array with one for each row.
    `key` holds the number of tokens, the dimensions of a head, and RoPE's base and scale.
    """
    tokens, dims, base, scale = key
    half = dims // 2
    positions = mx.arange(tokens, dtype=mx.float32)
    if isinstance(offset, int):
        positions = positions + float(offset)
    else:
        positions = offset.reshape(-1, 1, 1).astype(mx.float32) + positions
    frequencies = mx.exp(mx.arange(0, -half, -1, dtype=mx.float32) * (math.log(base) / half))
    theta = (positions * scale)[..., None] * frequencies  # (tokens, half) or (rows, 1, tokens, half)
    cos, sin = mx.cos(theta), mx.sin(theta)
    both = mx.concatenate([cos, cos], axis=-1), mx.concatenate([-sin, sin], axis=-1)
    return _Angles(offset, key, *both)
