"""Unpack quantized blocks as llama.cpp stores them, with numpy.

The formats are those of ggml (`block_q4_0`, `block_q4_K` and so on). In MLX, 32 weights share a scale and a
bias, and each weight is `scale * number + bias`. The quantized numbers of a format with the same formula and
groups are used unchanged. The weights of the other formats are dequantized, and then quantized again for MLX.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
GROUP = 32

_IQ4 = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32
)  # the 16 values of ggml's kvalues_iq4nl


def keeps_numbers(name: str) -> bool:
    """Return True if MLX can use the quantized numbers of the block format `name` as they are. Otherwise the
    weights are dequantized and quantized again.
    """
    return name in _NUMBERS


def numbers(name: str, blocks: Array) -> tuple[Array, Array, Array]:
    """Return the quantized numbers, the scales and the biases in `blocks`, whose format `name` must be one
    for which `keeps_numbers` is True.

    `blocks` has the shape (blocks, bytes per block), in uint8. The numbers have the shape (blocks, groups,
    32), in uint8, the scales and biases (blocks, groups), in float32.
    """
    return _NUMBERS[name](blocks)


def weights(name: str, blocks: Array) -> Array:
    """Return the dequantized weights in `blocks`, of the shape (blocks, weights per block) in float32. Raises
    KeyError if the block format `name`, such as `Q4_K`, is unknown.

    `blocks` has the shape (blocks, bytes per block), in uint8.
    """
    if (compute := _WEIGHTS.get(name)) is not None:
        return compute(blocks)
    number, scale, bias = numbers(name, blocks)
    return (number * scale[..., None] + bias[..., None]).reshape(len(blocks), -1)


def _f16(blocks: Array, start: int) -> Array:
    """Return the half-precision number at byte `start` of each block, of the shape (blocks, 1) in float32."""
    return np.ascontiguousarray(blocks[:, start : start + 2]).view(np.float16).astype(np.float32)


def _nibbles(packed: Array) -> Array:
    """Return the low four bits of each run of bytes, then the high four: the shape (…, n) becomes (…,
    2, n).
    """
    return np.stack([packed & 0x0F, packed >> 4], axis=-2)


def _fifth_bits(packed: Array) -> Array:
    """Return the bits of `packed` (blocks, 4) as (blocks, 32), each shifted to be the fifth bit of a
    number.
    """
    return np.unpackbits(packed, axis=1, bitorder="little") << 4


def _q4_0(blocks: Array) -> tuple[Array, Array, Array]:
    scale = _f16(blocks, 0)
    return _nibbles(blocks[:, 2:]).reshape(-1, 1, GROUP), scale, -8 * scale


def _q4_1(blocks: Array) -> tuple[Array, Array, Array]:
    return _nibbles(blocks[:, 4:]).reshape(-1, 1, GROUP), _f16(blocks, 0), _f16(blocks, 2)


def _q5_0(blocks: Array) -> tuple[Array, Array, Array]:
    scale = _f16(blocks, 0)
    number = _nibbles(blocks[:, 6:]).reshape(-1, GROUP) | _fifth_bits(blocks[:, 2:6])
    return number[:, None], scale, -16 * scale


def _q5_1(blocks: Array) -> tuple[Array, Array, Array]:
    number = _nibbles(blocks[:, 8:]).reshape(-1, GROUP) | _fifth_bits(blocks[:, 4:8])
    return number[:, None], _f16(blocks, 0), _f16(blocks, 2)


def _q8_0(blocks: Array) -> tuple[Array, Array, Array]:
    scale = _f16(blocks, 0)
    return (blocks[:, 2:] ^ 0x80)[:, None], scale, -128 * scale  # from signed to unsigned numbers


def _k_scales(blocks: Array) -> tuple[Array, Array]:
    """Return the scales and minima of Q4_K and Q5_K blocks, stored as 6 bits each in 12 bytes; both (blocks,
    8) in float32.
    """
    low, mid, high = (blocks[:, start : start + 4] for start in (4, 8, 12))
    scale = np.concatenate([low & 0x3F, (high & 0x0F) | ((low >> 6) << 4)], axis=1)
    minimum = np.concatenate([mid & 0x3F, (high >> 4) | ((mid >> 6) << 4)], axis=1)
    return _f16(blocks, 0) * scale, _f16(blocks, 2) * minimum


def _q4_k(blocks: Array) -> tuple[Array, Array, Array]:
    scale, minimum = _k_scales(blocks)
    return _nibbles(blocks[:, 16:].reshape(-1, 4, GROUP)).reshape(-1, 8, GROUP), scale, -minimum


def _q5_k(blocks: Array) -> tuple[Array, Array, Array]:
    scale, minimum = _k_scales(blocks)
    low = _nibbles(blocks[:, 48:].reshape(-1, 4, GROUP)).reshape(-1, 8, GROUP)
    fifth = (blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]) & 1
    return low | (fifth << 4), scale, -minimum


def _q2_k(blocks: Array) -> Array:
    number = (blocks[:, 16:80].reshape(-1, 2, 1, 32) >> _SHIFTS) & 3
    scale = _f16(blocks, 80) * (blocks[:, :16] & 0x0F)
    minimum = _f16(blocks, 82) * (blocks[:, :16] >> 4)
    return _groups_of_16(number, scale) - np.repeat(minimum, 16, axis=1)


def _q3_k(blocks: Array) -> Array:
    low = (blocks[:, 32:96].reshape(-1, 2, 1, 32) >> _SHIFTS) & 3
    third = (blocks[:, None, :32] >> np.arange(8, dtype=np.uint8)[:, None]) & 1
    number = low.reshape(-1, 256).astype(np.int8) - 4 * (1 - third.reshape(-1, 256).astype(np.int8))
    high = (blocks[:, None, 104:108] >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & 3
    scale = _nibbles(blocks[:, 96:104]).reshape(-1, 16) | (high.reshape(-1, 16) << 4)
    return _groups_of_16(number, _f16(blocks, 108) * (scale.astype(np.int8) - 32))


def _q6_k(blocks: Array) -> Array:
    low = _nibbles(blocks[:, :128].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
    high = (blocks[:, 128:192].reshape(-1, 2, 1, 32) >> _SHIFTS) & 3
    number = (low | (high << 4)).astype(np.int8) - 32
    scale = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)
    return _groups_of_16(number, _f16(blocks, 208) * scale)


def _iq4_nl(blocks: Array) -> Array:
    return _f16(blocks, 0) * _IQ4[_nibbles(blocks[:, 2:]).reshape(-1, GROUP)]


def _iq4_xs(blocks: Array) -> Array:
    high = np.ascontiguousarray(blocks[:, 2:4]).view(np.uint16) >> np.arange(0, 16, 2, dtype=np.uint16)
    low = np.stack([blocks[:, 4:8] & 0x0F, blocks[:, 4:8] >> 4], axis=2).reshape(-1, 8)
    scale = _f16(blocks, 0) * ((low | ((high & 3) << 4)).astype(np.int16) - 32)
    value = _IQ4[_nibbles(blocks[:, 8:].reshape(-1, 8, 16))].reshape(-1, 8, GROUP)
    return (value * scale[..., None]).reshape(-1, 256)


def _groups_of_16(number: Array, scale: Array) -> Array:
    """Return the weights, of the shape (blocks, 256) in float32: each quantized number multiplied by the
    scale of its group of 16. `scale` has the shape (blocks, 16).
    """
    return (number.reshape(-1, 16, 16) * scale[..., None]).reshape(-1, 256).astype(np.float32)


_SHIFTS = np.array([0, 2, 4, 6], np.uint8)[:, None]
_NUMBERS: dict[str, Callable[[Array], tuple[Array, Array, Array]]] = {
    "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0, "Q4_K": _q4_k, "Q5_K": _q5_k,
}  # fmt: skip
_WEIGHTS: dict[str, Callable[[Array], Array]] = {
    "Q2_K": _q2_k, "Q3_K": _q3_k, "Q6_K": _q6_k, "IQ4_NL": _iq4_nl, "IQ4_XS": _iq4_xs,
}  # fmt: skip
