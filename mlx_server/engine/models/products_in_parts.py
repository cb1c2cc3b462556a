"""Compute products of a few rows by large matrices in parts, if OpenBLAS is slow with the whole matrix.

OpenBLAS copies ("packs") a large matrix before it multiplies it. If the other factor has only one row, as in
each step of an answer, that takes several times as long as the product itself. For small matrices, OpenBLAS
has kernels that do not copy. So the matrix is cut into parts that are small enough for these kernels.
Measured for a whole step of a model of 135 million weights, with one thread: 127 ms for one row and 130 ms
for two rows with whole matrices; 80 and 90 ms with parts of 192 rows (384 rows: 78 and 100; 768 rows: 82 and
119).

Only OpenBLAS's kernels for processors with AVX-512 have this fast path. On other processors, products are not
divided, and the project's own library computes those with few rows (`mlx_server/blas/narrow_products.c`).
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_server import blas
from mlx_server.engine.device import computes_on_gpu

PART_ROWS = 192
"""How many rows of the matrix a part has."""
MOST_INPUT_ROWS = 8
"""If the other factor has more rows than this, the product with the whole matrix is as fast."""


def multiply_in_parts(model: nn.Module) -> None:
    """Make the model's large layers multiply inputs of few rows (at most MOST_INPUT_ROWS) by parts of the
    weight matrix, of PART_ROWS rows each, instead of by the whole matrix. The model is changed in place.

    Do nothing where this would not be faster: on a GPU, and if OpenBLAS cannot multiply small matrices on
    this processor without copying them.
    """
    if computes_on_gpu() or not blas.has_small_kernels():
        return
    for module in model.modules():
        if type(module) is nn.Linear and _is_large(module.weight):
            module.__class__ = LinearInParts
        elif type(module) is nn.Embedding and _is_large(module.weight):
            module.__class__ = EmbeddingInParts


class LinearInParts(nn.Linear):
    """A Linear layer that multiplies inputs of few rows by parts of its weight matrix, PART_ROWS rows each,
    because OpenBLAS is slow with the whole matrix. `multiply_in_parts` uses this class only for float32
    weights with at least 2 * PART_ROWS rows.
    """

    def __call__(self, x: mx.array) -> mx.array:
        y = product(x, self.weight)
        return y + self.bias if "bias" in self else y


class EmbeddingInParts(nn.Embedding):
    """A float32 Embedding that is also its model's output layer, and computes the logits in parts."""

    def as_linear(self, x: mx.array) -> mx.array:
        """Return the logits for the hidden states `x`, as the base class does."""
        return product(x, self.weight)


def product(x: mx.array, weight: mx.array) -> mx.array:
    """Return `x @ weight.T`, computed in parts if `x` has few rows. `x` has the shape (..., width), `weight`
    the shape (outputs, width).
    """
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
