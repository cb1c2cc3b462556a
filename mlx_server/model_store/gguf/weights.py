"""Translate a GGUF file's tensors to MLX's arrays: as floats, or in MLX's group quantization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_server.model_store.gguf import blocks
from mlx_server.model_store.gguf.reader import Tensor

_STEP_WEIGHTS = 1 << 24
"""How many weights are unpacked at one time, because the largest matrices would take gigabytes."""


@dataclass(frozen=True)
class Target:
    """How converted weights are stored: as floats of `dtype` if `dense`; else quantized tensors stay
    quantized, with scales of `dtype`.
    """

    dense: bool
    dtype: mx.Dtype


def arrays(
    tensor: Tensor, data: Any, target: Target, heads: int = 0, offset: float = 0.0
) -> dict[str, mx.array]:
    """Return the MLX arrays of one tensor. The keys are the last parts of their names: `weight`, and, if the
    tensor stays quantized, `scales` and `biases`.

    `data` is the file's content in uint8, and `target` says how weights are stored. If `heads` is not 0, the
    tensor's rows are divided equally among that number of attention heads, and llama.cpp's reordering of each
    head's rows is undone. `offset` is subtracted from the weights.
    """
    raw = data[tensor.offset : tensor.offset + tensor.bytes]
    columns = tensor.shape[-1]
    rows = raw.reshape(tensor.weights // columns, -1)
    if heads:
        rows = rows[_row_order(len(rows), heads)]
    step = max(1, _STEP_WEIGHTS // columns)
    parts: dict[str, list[mx.array]] = {}
    for start in range(0, len(rows), step):
        for name, part in _unpack(tensor, rows[start : start + step], target, offset).items():
            mx.eval(part)
            parts.setdefault(name, []).append(part)
    whole = {name: part[0] if len(part) == 1 else mx.concatenate(part) for name, part in parts.items()}
    return {name: array.reshape(*tensor.shape[:-1], -1) for name, array in whole.items()}


def _row_order(rows: int, heads: int) -> np.ndarray:
    """Return, for each of the original tensor's `rows` rows, the index of this row in the GGUF file.

    The rows are divided equally among `heads` attention heads, and llama.cpp interleaves the two halves of
    each head's rows. Only whole rows move, so the order is the same for all types of tensors.
    """
    return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(-1)


def _unpack(tensor: Tensor, rows: np.ndarray, target: Target, offset: float) -> dict[str, mx.array]:
    """Return the MLX arrays of some rows of a tensor by name: `weight`, and, if the tensor stays quantized,
    `scales` and `biases`. Each array has as many rows as `rows`.

    `rows` holds the bytes of these rows in the GGUF file. `target` says how weights are stored; `offset` is
    subtracted from weights that become floats.
    """
    name = tensor.type.name
    if tensor.type.block_weights == 1:
        return {
            "weight": (_floats(name, rows) - offset if offset else _floats(name, rows)).astype(target.dtype)
        }
    flat = np.ascontiguousarray(rows).reshape(-1, tensor.type.block_bytes)
    if target.dense:
        weights = blocks.weights(name, flat).reshape(len(rows), -1)
        return {"weight": (mx.array(weights) - offset).astype(target.dtype)}
    bits = tensor.type.bits
    assert bits
    if not blocks.keeps_numbers(name):
        exact = mx.array(blocks.weights(name, flat).reshape(len(rows), -1))
        packed, scales, biases = mx.quantize(exact, blocks.GROUP, bits)
        return {
            "weight": packed,
            "scales": scales.astype(target.dtype),
            "biases": biases.astype(target.dtype),
        }
    numbers, scale, bias = blocks.numbers(name, flat)
    words = _packed(numbers.reshape(-1, blocks.GROUP), bits)
    return {
        "weight": mx.array(words.reshape(len(rows), -1)),
        "scales": mx.array(scale.reshape(len(rows), -1)).astype(target.dtype),
        "biases": mx.array(bias.reshape(len(rows), -1)).astype(target.dtype),
    }


def _floats(name: str, rows: np.ndarray) -> mx.array:
    rows = np.ascontiguousarray(rows)
    if name == "BF16":
        return mx.array(rows.view(np.uint16)).view(mx.bfloat16).astype(mx.float32)
    return mx.array(rows.view(np.float16 if name == "F16" else np.float32)).astype(mx.float32)


def _packed(numbers: np.ndarray, bits: int) -> np.ndarray:
    """Return groups of 32 numbers as MLX packs them: `bits` per number, the lowest bits first, in words of 32
    bits.
    """
    if bits == 8:
        return np.ascontiguousarray(numbers).view(np.uint32)
    if bits == 4:
        return np.ascontiguousarray(numbers[:, 0::2] | (numbers[:, 1::2] << 4)).view(np.uint32)
    each = np.unpackbits(numbers[..., None], axis=-1, count=bits, bitorder="little")
    return np.packbits(each.reshape(len(numbers), -1), axis=-1, bitorder="little").view(np.uint32)
