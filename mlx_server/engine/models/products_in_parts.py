"""Compute products of a few rows by large matrices in parts, where OpenBLAS is slow at the whole.

OpenBLAS copies ("packs") a large matrix before it multiplies it, which takes several times as long as the
product itself if the other factor has one row only, as in each step of an answer. For a small matrix it has
kernels that read it where it is. So the matrix is cut into parts that are small enough for them. Measured for
a whole step of a model of 135 million weights, with one thread: 127 ms for one row and 130 ms for two with
whole matrices, 80 and 90 ms with parts of 192 rows (384: 78 and 100; 768: 82 and 119).

Only OpenBLAS's kernels for processors with AVX-512 have this fast path. On others products stay whole, and
our own library computes the narrow ones (`mlx_server/blas/narrow_products.c`).
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_server import blas
from mlx_server.engine.device import computes_on_gpu

PART_ROWS = 192
"""Rows of a part of the matrix."""
MOST_INPUT_ROWS = 8
"""With more rows in the other factor, the whole product is as fast."""


def multiply_in_parts(model: nn.Module) -> None:
    """Let the model's large layers compute narrow products in parts, if that is faster on this machine."""
    if computes_on_gpu() or not blas.has_small_kernels():
        return
    for module in model.modules():
        if type(module) is nn.Linear and _is_large(module.weight):
            module.__class__ = LinearInParts
        elif type(module) is nn.Embedding and _is_large(module.weight):
            module.__class__ = EmbeddingInParts


class LinearInParts(nn.Linear):
    """A Linear layer that computes products in parts. It has float32 weights, and over PART_ROWS outputs."""

    def __call__(self, x: mx.array) -> mx.array:
        y = product(x, self.weight)
        return y + self.bias if "bias" in self else y


class EmbeddingInParts(nn.Embedding):
    """A float32 Embedding that is also its model's output layer, which it computes in parts."""

    def as_linear(self, x: mx.array) -> mx.array:
        """Return the logits of each token, as the base class does."""
        return product(x, self.weight)


def product(x: mx.array, weight: mx.array) -> mx.array:
    """Return `x @ weight.T`. `x` has the shape (..., width), `weight` the shape (outputs, width)."""
    outputs, width = weight.shape
    rows = x.size // width
    if rows > MOST_INPUT_ROWS:
        return x @ weight.T
    parts = outputs // PART_ROWS
    cut = parts * PART_ROWS
    flat = x.reshape(1, rows, width)
    split = flat @ weight[:cut].reshape(parts, PART_ROWS, width).swapaxes(-1, -2)  # (parts, rows, PART_ROWS)
    y = split.swapaxes(0, 1).reshape(rows, cut)
    if cut < outputs:
        y = mx.concatenate([y, flat[0] @ weight[cut:].T], axis=-1)
    return y.reshape(*x.shape[:-1], outputs)


def _is_large(weight: Any) -> bool:
    return weight.dtype == mx.float32 and weight.ndim == 2 and weight.shape[0] >= 2 * PART_ROWS
