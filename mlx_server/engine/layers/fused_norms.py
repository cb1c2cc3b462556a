"""Compute the normalization of a model's layers (RMSNorm) in three operations instead of seven, on a CPU.

MLX has no kernel for RMSNorm on a CPU. Each of its operations passes over the numbers once, and also takes
some 2 µs to be planned and begun, which in a step of a few answers is most of the time: 576 numbers take
20 µs with MLX and 10 µs here. MLX joins the last five operations in one loop, which the C compiler
translates. The loop computes one number at a time, so for many numbers MLX's own operations are faster.

The results are equal bit for bit on x86-64, because the loop has the same operations in the same order.
"""

from __future__ import annotations

from functools import cache, partial

import mlx.core as mx
import mlx.nn as nn

from mlx_server.engine.device import computes_on_gpu

MOST_NUMBERS = 6144
"""With more numbers, MLX's own operations are faster."""


def use_fused_norms(model: nn.Module) -> None:
    """Make the model's layers compute RMSNorm by this module on a CPU. The model is changed in place. On a
    GPU, do nothing, because MLX has a kernel for RMSNorm there.
    """
    if computes_on_gpu():
        return
    for module in model.modules():
        if type(module) is nn.RMSNorm:
            module.__class__ = FusedRMSNorm


class FusedRMSNorm(nn.RMSNorm):
    """RMSNorm in three operations. More than MOST_NUMBERS numbers, and those that are not float32, are passed
    to the base class.
    """

    def __call__(self, x: mx.array) -> mx.array:
        """Normalize `x` over its last axis, and multiply it by the layer's weight."""
        weight = self["weight"]
        if x.size > MOST_NUMBERS or x.dtype != mx.float32 or weight.dtype != mx.float32:
            normalized: mx.array = super().__call__(x)
            return normalized
        squares = mx.square(x).sum(axis=-1, keepdims=True)
        return _normalized(x, squares, weight, *_numbers(x.shape[-1], self.eps))


@cache
def _numbers(width: int, eps: float) -> tuple[mx.array, mx.array]:
    """Return 1 / `width` and `eps` as arrays. Numbers that are no arrays would be part of the loop's code, so
    that each model would need a loop of its own.
    """
    return mx.array(1 / width), mx.array(eps)


@partial(mx.compile, shapeless=True)
def _normalized(
    x: mx.array, squares: mx.array, weight: mx.array, one_by_width: mx.array, eps: mx.array
) -> mx.array:
    return x * mx.rsqrt(squares * one_by_width + eps) * weight
